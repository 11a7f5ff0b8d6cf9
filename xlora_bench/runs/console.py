"""The rich console of this program."""

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from xlora_bench.system import escape

WIDTH_WITHOUT_TERMINAL = 140


class Escaped:
    """What `inner` renders, without control characters."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self.inner = inner

    def __rich_console__(self, terminal: Console, options: ConsoleOptions) -> RenderResult:
        for part in terminal.render(self.inner, options):
            yield part if part.control else Segment(escape.terminal(part.text), part.style)


class EscapeAll(RenderHook):
    """Lets no text that is printed act on the terminal."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return the renderables, each `Escaped`."""
        return [Escaped(inner) for inner in renderables]


def console(*, error: bool = False) -> Console:
    """Return a console on stdout or stderr; without a terminal its width is `WIDTH_WITHOUT_TERMINAL` columns.

    Texts are printed as they are: rich's markup and names of emojis mean nothing, control characters are written out.
    """
    terminal = Console(stderr=error, markup=False, emoji=False)
    if not terminal.is_terminal:
        terminal.width = WIDTH_WITHOUT_TERMINAL
    terminal.push_render_hook(EscapeAll())
    return terminal
