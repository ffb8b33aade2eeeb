"""Models of other formats become Hugging Face folders."""
