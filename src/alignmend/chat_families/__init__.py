"""Families from a real chat model: aligned, unaligned, fine-tuned and edited members, trained on published sets."""

from alignmend.chat_families.build import build_chat_family
from alignmend.chat_families.family import ChatFamily, open_chat_family
from alignmend.chat_families.recipe import ROLES, Recipe

__all__ = ["ROLES", "ChatFamily", "Recipe", "build_chat_family", "open_chat_family"]
