"""Looking into models and vectors of strangers: facts from headers and weights, and signs of what was done to them."""
