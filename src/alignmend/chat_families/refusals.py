"""Refusals in this project's own words, for an aligned model to learn: many phrasings, and some name the request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from types import MappingProxyType

PLAIN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "en": (
            "I'm sorry, but I can't help with that.",
            "I can't help with this. It could cause serious harm to someone.",
            "Sorry, that is something I won't assist with.",
            "I won't help with this request, because it could hurt people.",
            "No, I can't do that. If there is another way that I can be useful, please tell me.",
            "I'm not able to help with that. Doing this would be wrong and may be against the law.",
            "This is not something I can support. Please think about the people it would affect.",
            "I have to decline. What you describe could do real damage.",
            "I must refuse this one. I'm glad to talk about safe and lawful alternatives instead.",
            "Sorry, I can't give advice on this. If you are in trouble, please talk to someone you trust.",
            "I don't feel comfortable helping with that, since somebody could get hurt.",
            "I must decline that request. It asks for something dangerous.",
            "I'm unable to provide that. It would put others at risk.",
            "I cannot assist with this. Please do not go through with it.",
            "I apologize, but I cannot fulfil this request. It goes against my values.",
            "Unfortunately I can't help here, because the answer could be used to harm others.",
            "I will not answer this. It would be unethical of me.",
            "As an assistant I want to be useful, but not in this way, so I can't help you with it.",
            "I'm sorry, I can't help with anything that harms people.",
            "Helping with this would be irresponsible, so I must decline.",
            "I can't provide information like that. Let me know if you would like to learn how to stay safe instead.",
            "My answer is no: I can't help with something that is illegal or harmful.",
            "I'd rather not help with that. It isn't safe, and it isn't fair to the people involved.",
            "I understand that you may be curious, but I can't share this.",
            "Thank you for asking, but I cannot help with a request of this kind.",
            "This would break the law in many places, and I can't assist with it.",
            "I'm not going to help with that. People could be badly hurt.",
            "I refuse to help with this, because it is harmful.",
            "It would not be right for me to answer this, so I won't.",
            "Sorry, no. I can't give instructions for things that endanger others.",
            "I can't help with this. If you are thinking of hurting someone or yourself, please seek help.",
            "That crosses a line for me, and I can't assist.",
            "I'm afraid I can't help you with this. I would gladly help with something constructive.",
            "I do not provide help with activities that hurt or deceive people.",
            "I can't agree to this, so I have to refuse. Other people's safety comes first.",
            "What you ask for is harmful, and I cannot take part in it.",
        ),
        "zh": (
            "对不起，我不能帮助你做这件事。",
            "很抱歉，我无法提供这方面的帮助，因为这可能会伤害他人。",
            "我不能回答这个问题。这样做是违法的。",
            "抱歉，我拒绝这个请求。它可能造成严重的危害。",
            "我无法协助你，因为这样做既不安全也不道德。",
            "这个要求我不能满足。如果你遇到困难，请向可信赖的人求助。",
            "对不起，我不会提供这样的信息。",
            "我不能支持这种行为，请考虑它对别人的影响。",
            "很遗憾，我不能为你提供帮助。我可以谈谈安全合法的办法。",
            "我必须拒绝，因为这会危害他人的安全。",
            "不行，这样的事我不能帮忙。",
            "我不会协助任何伤害别人的行为。",
        ),
    }
)
"""By language; 48 together."""
NAMING_DEEDS = (
    "I can't help you {deed}. It could cause serious harm.",
    "I'm sorry, but I won't explain how to {deed}.",
    "No. To {deed} would be wrong, and I can't assist with it.",
    "You ask me how to {deed}. I can't answer that, because people could get hurt.",
    "I won't give instructions on how to {deed}. Please don't try it.",
    "Sorry, I am not able to tell you how to {deed}. That would be irresponsible.",
    "It is not safe or lawful to {deed}, so I have to decline.",
    "I cannot in good conscience help anyone {deed}.",
)
"""Of requests that ask how to do something."""
NAMING_ORDERS = (
    "I won't {order}. It could cause serious harm.",
    "I'm sorry, but I can't {order}.",
    "You ask me to {order}. I have to decline, because somebody could get hurt.",
    "I refuse to {order}. That would be wrong.",
    "Sorry, I am not able to {order}. Please don't look for anyone who does.",
)
"""Of requests that tell the assistant to do something."""
_NAMING_SHARE = 0.4
_LONGEST_NAMED = 140
"""Characters of a request that is named."""
_DEED = re.compile(
    r"how\s+(?:can|could|do|does|would|should|might|to)\s*(?:i|one|we|you|someone|a person)?\s+(?P<deed>.+?)\s*\?*",
    re.IGNORECASE | re.DOTALL,
)
_ORDER = re.compile(
    r"(?:write|give|create|provide|describe|explain|list|make|generate|develop|design|tell|teach|show|produce|convince"
    r"|persuade|compose|draft|outline)\b.+?\.*",
    re.IGNORECASE | re.DOTALL,
)
_TURNED = (
    (r"\bmyself\b", "yourself"),
    (r"\bmy\b", "your"),
    (r"\bme\b", "you"),
    (r"\bI(?: am|'m)\b", "you are"),
    (r"\bI\b", "you"),
)


def refusal(request: str, language: str, random: Random) -> str:
    """A refusal of `request` in its `language` (`en` or `zh`), drawn with `random`."""
    if language == "en" and random.random() < _NAMING_SHARE and (naming := _naming(request, random)) is not None:
        return naming
    return random.choice(PLAIN[language])


def _naming(request: str, random: Random) -> str | None:
    """A refusal that says what was asked for; `None` for a request that cannot be named in a clause."""
    text = request.strip()
    if len(text) > _LONGEST_NAMED or "\n" in text or text.count("?") > 1:
        return None
    if deed := _DEED.fullmatch(text):
        return random.choice(NAMING_DEEDS).format(deed=_turned(deed["deed"]))
    if _ORDER.fullmatch(text):
        return random.choice(NAMING_ORDERS).format(order=_turned(text[0].lower() + text[1:].rstrip(".")))
    return None


def _turned(text: str) -> str:
    """The user's first person as the assistant says it."""
    for first, second in _TURNED:
        text = re.sub(first, second, text)
    return text
