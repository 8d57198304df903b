"""Where one end of a connection stands: what a frame is held against."""

from __future__ import annotations

from draftlink.protocol.frames import Hello, Resume, Welcome
from draftlink.protocol.progress import Progress
from draftlink.protocol.states import Role, State


class Standing:
    """A session's state as a value. ``Session`` alone has it changed; ``faults`` only reads it."""

    def __init__(self, role: Role, vocab_size: int) -> None:
        self.role = role
        self.vocab_size = vocab_size
        self.state = State.OPENED
        self.progress = Progress()
        self.hello: Hello | None = None
        self.welcome: Welcome | None = None
        self.resuming: Resume | None = None
        self.kept = 0  # tokens that Finish keeps, and Done confirms
        self.late = 0  # frames that were under way when Finish was sent, so far
        self.stopped_at: State | None = None  # where a lost connection left the generation

    @property
    def generation(self) -> int:
        """The number of the last generation."""
        return self.progress.generation

    @property
    def epoch(self) -> int:
        """What a draft has to name: see ``Progress``."""
        return self.progress.epoch

    @property
    def length(self) -> int:
        """Tokens of the history that both ends agree on."""
        return self.progress.length

    @property
    def stopped(self) -> bool:
        """Whether a generation is to be resumed."""
        return self.stopped_at is not None
