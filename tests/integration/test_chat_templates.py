"""A chat template gives the text that transformers gives."""

from __future__ import annotations

import pytest
from jinja2 import TemplateError

from moaa.weights.chat_template import ChatTemplate
from tests.support import training as support
from tests.support.training import said


@pytest.mark.parametrize("name", ["LLAMA3", "GEMMA", "DEFAULT_SYSTEM", "MISTRAL", "THINKING"])
def test_a_template_gives_the_text_that_transformers_gives(name: str) -> None:
    from transformers.utils import chat_template_utils

    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    text = getattr(support, name)
    compiled = chat_template_utils._compile_jinja_template(text)
    ours = ChatTemplate(text, tokens)
    for messages in (
        said("Hi"),
        said("system: Be brief.", "Hi"),
        said("Hi", "Hello <b>& you</b>", "Bye"),
        said("system: é", "Hi", "Hello", "Bye", "So long"),
    ):
        for prompt in (True, False):
            try:
                theirs = compiled.render(messages=messages, add_generation_prompt=prompt, **tokens)
            except TemplateError as error:
                with pytest.raises(TemplateError, match=str(error)):
                    ours.render(messages, prompt=prompt)
            else:
                assert ours.render(messages, prompt=prompt) == theirs
