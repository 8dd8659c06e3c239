"""Talking to models over the OpenAI protocol."""

from moaa.chat.message import Ask, Call, Choice, Message, Reply

__all__ = ["Ask", "Call", "Choice", "Message", "Reply"]
