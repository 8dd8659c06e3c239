"""The OpenAI chat protocol: messages, calls and replies, and the client that sends them."""

from moaa.chat.message import Ask, Call, Choice, Message, Reply

__all__ = ["Ask", "Call", "Choice", "Message", "Reply"]
