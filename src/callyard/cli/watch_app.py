"""The terminal view of `callyard watch`, on Textual: a table of calls, and keys to open, read, cancel."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from ..errors import CallyardError
from ..utils.shown_text import visible
from .watch_rows import CallRow, CallsNow, Source

__all__ = ["WatchApp"]

_COLUMNS = ("CALL", "FUNCTION", "STATE", "WHERE, OR WAITS", "TIME")


def in_its_colours(text: str) -> Text:
    """Return a text with its colours; one with other control characters in plain, with all of them visible."""
    coloured = Text.from_ansi(text)
    return coloured if visible(coloured.plain) == coloured.plain else Text(visible(text))


class TextScreen(ModalScreen[None]):
    """A text over the table, as the log of a call."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "dismiss", "back")]
    CSS = "TextScreen { align: center middle; } #text { width: 90%; height: 80%; border: round $primary; padding: 1; }"

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def compose(self) -> ComposeResult:
        """Show the text in its own colours: what calls print is no markup, and the terminal must not obey it."""
        with VerticalScroll(id="text"):
            yield Static(in_its_colours(self.text), id="words")
        yield Footer()


class ConfirmScreen(ModalScreen[bool]):
    """A question that is answered by y or n."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "yes"),
        Binding("n,escape", "dismiss(False)", "no"),
    ]
    CSS = "ConfirmScreen { align: center middle; } #text { width: auto; border: round $error; padding: 1; }"

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        """Show the question."""
        yield Static(self.question, id="text", markup=False)
        yield Footer()


class WatchApp(App[None]):
    """The table of calls, refreshed every second or so; the answers are waited for in threads."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "open", "open", key_display="enter"),  # the table takes the key itself, and does not name it
        Binding("l", "log", "log"),
        Binding("c", "cancel", "cancel"),
        Binding("q,ctrl+c", "quit", "quit"),
    ]
    CSS = "#head { height: auto; max-height: 30%; padding: 0 1; } DataTable { height: 1fr; }"
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, source: Source, period: float) -> None:
        """Show what the source tells, `period` seconds after the last look."""
        super().__init__()
        self._source, self._period = source, period
        self._rows: dict[str, CallRow] = {}

    def compose(self) -> ComposeResult:
        """Lay out lines about executors, the table, and the keys."""
        yield Static("", id="head", markup=False)
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.table.add_columns(*_COLUMNS)
        self.look()

    @property
    def table(self) -> DataTable[Text]:
        """The table of calls."""
        return self.query_one(DataTable)

    @work(thread=True, exclusive=True, group="look")
    def look(self) -> None:
        """Look once, in a thread, and again after a while."""
        try:
            now = self._source.look()
        except Exception as error:  # a cache that is just being removed, say
            now = CallsNow((f"{type(error).__name__}: {error}",), ())
        self.call_from_thread(self.show, now)

    def show(self, now: CallsNow) -> None:
        """Show what there is now; the cursor stays with its call."""
        chosen, table = self.chosen, self.table
        self.screen_stack[0].query_one("#head", Static).update("\n".join(now.head))
        table.clear()
        self._rows = {row.id: row for row in now.rows}
        for row in self._rows.values():
            cells = (row.id, row.function, row.state, row.where, row.time)
            table.add_row(*map(Text, cells), key=row.id)  # a name, or the words of an error, are no markup
        if chosen is not None and chosen.id in self._rows:
            table.move_cursor(row=list(self._rows).index(chosen.id))
        self.set_timer(self._period, self.look)

    @property
    def chosen(self) -> CallRow | None:
        """The call under the cursor; None without calls."""
        rows, place = list(self._rows.values()), self.table.cursor_row
        return rows[place] if 0 <= place < len(rows) else None

    def on_data_table_row_selected(self) -> None:
        """Open the call under the cursor."""
        self.action_open()

    def action_open(self) -> None:
        """Show what can be said of the call."""
        if self.chosen is not None:
            self.tell(self.chosen, "open")

    def action_log(self) -> None:
        """Show what the call has printed."""
        if self.chosen is not None:
            self.tell(self.chosen, "log")

    def action_cancel(self) -> None:
        """Cancel the call, after a yes."""
        row = self.chosen
        if row is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.cancel(row)

        self.push_screen(ConfirmScreen(f"Cancel {row.function} ({row.id}, {row.state})?"), answered)

    @work(thread=True)
    def tell(self, row: CallRow, what: str) -> None:
        """Get a text, in a thread, and show it."""
        text = self._source.log(row) if what == "log" else f"{row.id}\n{self._source.explain(row)}"
        if what == "open" and row.key:
            text += f"\nkey {row.key}"
        self.call_from_thread(self.push_screen, TextScreen(text))

    @work(thread=True)
    def cancel(self, row: CallRow) -> None:
        """Cancel a call, in a thread, and say what was done."""
        try:
            words = self._source.cancel(row)
        except CallyardError as error:
            words = str(error)
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
        self.call_from_thread(self.notify, words, markup=False)
