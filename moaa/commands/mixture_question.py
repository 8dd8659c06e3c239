"""`moaa ask`: puts one question to a recipe's mixture, and shows the answers."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moaa import mixture
from moaa.asking import Session, ask_all
from moaa.chat.message import Ask, Message, Reply, opening
from moaa.errors import CallError, RecipeError, RowRejected
from moaa.journal import MemoryJournal
from moaa.ledger import Ledger
from moaa.progress import Progress, terminal
from moaa.recipe.load import load_file
from moaa.recipe.schema import Mixture, Recipe, Sampling
from moaa.store import Store

if TYPE_CHECKING:
    from rich.console import Console  # noqa: TID251 - its type
    from rich.spinner import Spinner


def ask(
    file: Path, question: str, system: str | None, endpoints: Sequence[str], sets: Sequence[str]
) -> None:
    """Answer a question with the recipe's mixture; print each proposal and the synthesis."""
    from rich.live import Live

    if not question.strip():
        raise RecipeError(
            "The question is empty. Give it in quotes, or - to read it from standard input."
        )
    recipe = load_file(file, [*_endpoint_sets(file, endpoints, sets), *sets]).recipe
    console = terminal.console(highlight=False)
    # On a terminal a moving line is shown below the answers. Elsewhere the progress of starting
    # engines is printed line by line.
    progress = Progress.silent() if console.is_terminal else Progress("ask", "questions")
    watch = AnswerDisplay(recipe.generate.mixture, console, progress)
    messages = opening(system, question)
    with progress:
        if console.is_terminal:
            with Live(
                console=console,
                get_renderable=watch.waiting_line,
                refresh_per_second=8,
                transient=True,
            ):
                respond(recipe, messages, watch, progress)
        else:
            respond(recipe, messages, watch, progress)
    watch.show_totals()


def respond(
    recipe: Recipe, messages: Sequence[Message], watch: AnswerDisplay, progress: Progress
) -> dict[str, Any]:
    """Return the mixture's answer in the form of `Answer.to_json`.
    Raises RowRejected if there is none."""
    from moaa import engines

    chosen = recipe.generate.mixture
    journal = MemoryJournal()
    session = Session(
        models={name: recipe.models[name] for name in sorted(chosen.models)},
        runtime=recipe.runtime,
        store=Store.of(recipe.store),
        ledger=Ledger(),
        progress=progress,
        start_fleet=engines.start,
    )

    async def answer(history: Sequence[Message], ask: Ask) -> dict[str, Any]:
        return (await mixture.respond(chosen, history, watch.over(ask))).to_json()

    ask_all({"question": messages}, answer, session, journal)
    record = journal.finished["question"]
    if rejected := record.get("rejected"):
        raise RowRejected(rejected["reason"], rejected["detail"])
    row: dict[str, Any] = record["row"]
    return row


class AnswerDisplay:
    """Shows each answer when it arrives.

    A call is known by its number: first the proposers of every layer, then the aggregator.
    """

    def __init__(self, mixture: Mixture, console: Console, progress: Progress) -> None:
        several = mixture.layers > 2
        self._names = [
            f"{member.label} (layer {layer})" if several else member.label
            for layer in range(1, mixture.layers)
            for member in mixture.proposers
        ]
        self._names.append(f"synthesis by {mixture.aggregator.label}")
        self._console = console
        self._progress = progress
        self._calls = 0
        self._waiting: dict[int, float] = {}
        self._replies: list[Reply] = []
        self._began: float | None = None
        self._spinner: Spinner | None = None

    def over(self, ask: Ask) -> Ask:
        """Return an `ask` that calls the given one and shows each reply."""

        async def watched(
            model: str, messages: Sequence[Message], sampling: Sampling, **options: Any
        ) -> Reply:
            call, self._calls = self._calls, self._calls + 1
            self._waiting[call] = time.monotonic()
            try:
                reply = await ask(model, messages, sampling, **options)
            except CallError as error:
                self._title(self._names[call], f"left out: {error}", "red")
                raise
            finally:
                del self._waiting[call]
            if self._began is None:
                self._began = time.monotonic() - reply.seconds
            self._replies.append(reply)
            self._show(self._names[call], model, reply, last=call == len(self._names) - 1)
            return reply

        return watched

    def waiting_line(self) -> Any:
        """Return the line with the calls in progress and their seconds."""
        from rich.spinner import Spinner
        from rich.text import Text

        self._spinner = self._spinner or Spinner("dots")
        now = time.monotonic()
        names = [
            f"{self._names[call]} {now - since:.0f} s"
            for call, since in sorted(self._waiting.items())
        ]
        note = self._progress.view().note
        self._spinner.text = Text(
            note or "  ".join(names), style="dim", no_wrap=True, overflow="ellipsis"
        )
        return self._spinner

    def show_totals(self) -> None:
        """Print the number of calls, their tokens and the seconds."""
        prompt = sum(reply.prompt_tokens for reply in self._replies)
        completion = sum(reply.completion_tokens for reply in self._replies)
        seconds = time.monotonic() - (self._began or time.monotonic())
        text = (
            f"{len(self._replies)} calls, {prompt:,} prompt and {completion:,} completion tokens, "
            f"{seconds:.1f} s"
        )
        self._console.print(f"\n{text}", style="dim", markup=False)

    def _show(self, name: str, model: str, reply: Reply, last: bool) -> None:
        from rich.text import Text

        tokens = f"{reply.prompt_tokens:,} + {reply.completion_tokens:,} tokens"
        figures = f"{model}, {tokens}, {reply.seconds:.1f} s"
        for number, choice in enumerate(reply.choices, 1):
            cut = ", cut at max_tokens" if choice.finish_reason == "length" else ""
            which = f" #{number}" if len(reply.choices) > 1 else ""
            self._title(name + which, figures + cut, "bold green" if last else "bold cyan")
            self._console.print(
                Text(choice.text.strip(), style="" if last else "dim"),
                soft_wrap=not self._console.is_terminal,
            )

    def _title(self, name: str, figures: str, style: str) -> None:
        from rich.text import Text

        self._console.print(
            Text.assemble("\n", (name, style), ("  " + figures, "dim")),
            soft_wrap=not self._console.is_terminal,
        )


def _endpoint_sets(file: Path, endpoints: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return `--set` values for each `[MODEL=]URL`;
    a bare URL is for every model of the mixture."""
    if not endpoints:
        return []
    # Fields of endpoints (a key, a name there) may be incomplete without the addresses that are
    # added here.
    recipe = load_file(
        file, [setting for setting in given if ".endpoint" not in setting.split("=")[0]]
    ).recipe
    sets: list[str] = []
    for given in sorted(endpoints, key=lambda text: bool(re.match(r"[^=/:]+=", text))):
        named = re.match(r"([^=/:]+)=(.*)", given)
        models = [named[1]] if named else sorted(recipe.generate.mixture.models)
        url = named[2] if named else given
        if not re.match(r"https?://", url):
            raise RecipeError(
                f"--endpoint {given}: give a server's address, like http://127.0.0.1:8000/v1 or "
                "MODEL=http://…."
            )
        for name in models:
            if name not in recipe.models:
                raise RecipeError(
                    f"--endpoint {given}: '{name}' is not one of `models` "
                    f"({', '.join(recipe.models)})."
                )
            sets.append(f'models."{name}".endpoint.url="{url}"')
    return sets
