"""A draft's tokens that branch: each says what it says after its own path alone."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from bs_runtime.model.target import Target
from device_runtime.device import Coupled, Sampling
from device_runtime.model.block import ROOT, Block
from device_runtime.model.branching import BranchingGraph
from device_runtime.model.bundle import BundleError, load_bundle
from device_runtime.model.draft_model import DraftModel
from draftlink.link.shaping import LinkProfile, make_link
from tests.bundles import fake_bundle
from tests.test_both_branches import counting, swap

PROMPT = [5, 9, 40, 7]
CLOSE = 1e-5
DEEPEST = 12


def replayed(fresh: DraftModel, path: list[int]) -> np.ndarray:
    """The row behind a path of a run that knows of nothing else."""
    fresh.rollback(0)
    return fresh.forward(path).copy()


class Grown:
    """A cache with a tree behind it, and what each token of it follows."""

    def __init__(self, model: DraftModel, rng: np.random.Generator) -> None:
        self.model, self.rng = model, rng
        model.rollback(0)
        model.forward(PROMPT)
        self.text = list(PROMPT)
        self.paths: list[list[int]] = []  # behind the text, of each token of the block
        self.parents: list[int] = []

    def grow(self, count: int) -> list[tuple[list[int], np.ndarray]]:
        """So many tokens more, wherever they follow; texts, and the rows behind them."""
        ids, parents = [], []
        for _ in range(count):
            known = len(self.paths)
            parent = int(self.rng.integers(ROOT, known)) if known else ROOT
            if parent != ROOT and len(self.paths[parent]) >= DEEPEST:
                parent = ROOT
            ids.append(int(self.rng.integers(0, 300)))
            parents.append(parent)
            self.paths.append([*(self.paths[parent] if parent != ROOT else []), ids[-1]])
        self.parents += parents
        rows = self.model.branch(ids, parents).copy()
        begin = len(self.paths) - count
        return [([*self.text, *self.paths[begin + at]], row) for at, row in enumerate(rows)]

    def ancestors(self, at: int) -> list[int]:
        found = []
        while at != ROOT:
            found.append(at)
            at = self.parents[at]
        return found[::-1]

    def keep(self, at: int) -> None:
        """The text goes on through a token; some of what does not follow it, and some that does,
        goes."""
        chain = self.ancestors(at)
        rest = [
            one
            for one in range(len(self.paths))
            if one not in chain and self.ancestors(one)[: len(chain)] == chain
        ]
        dropped = set()
        for one in rest:
            if self.rng.random() < 0.2 or self.parents[one] in dropped:
                dropped.add(one)
        rest = [one for one in rest if one not in dropped]
        self.model.keep(chain, rest)
        number = {one: place for place, one in enumerate(rest)}
        self.text += self.paths[at]
        self.parents = [number.get(self.parents[one], ROOT) for one in rest]
        self.paths = [self.paths[one][len(chain) :] for one in rest]


@pytest.fixture(scope="module")
def branching(model_folder, tmp_path_factory):
    """A function from an architecture and a precision to a bundle whose tokens may branch."""
    made = {}

    def make(architecture: str = "llama", precision: str = "fp32"):
        from export.bundle import export_bundle

        key = architecture, precision
        if key not in made:
            out = tmp_path_factory.mktemp("branching") / "-".join(key)
            made[key] = export_bundle(model_folder(architecture), out, precision, branches=True)
        return made[key]

    return make


def worst(bundle, histories: int, stale: float = np.nan) -> float:
    """The largest difference of a logit from that of a plain replay. ``stale``: what lies where
    nothing may look."""
    model, fresh = DraftModel(bundle, threads=1), DraftModel(bundle, threads=1)
    rng, found = np.random.default_rng(3), 0.0
    for _ in range(histories):
        grown = Grown(model, rng)
        for _ in range(4):
            for text, row in grown.grow(int(rng.integers(1, 6))):
                found = max(found, float(np.abs(replayed(fresh, text) - row).max()))
            grown.keep(int(rng.integers(0, len(grown.paths))))
            end = model.length + len(grown.paths)
            for buffer in model._graph.cache:
                buffer[:, :, end:] = stale
        model.keep([], [])
        token = int(rng.integers(0, 300))
        row = model.forward([token]).copy()
        found = max(found, float(np.abs(replayed(fresh, [*grown.text, token]) - row).max()))
    return found


ARCHITECTURES = ["llama", pytest.param("gemma", marks=pytest.mark.full),
                 pytest.param("qwen3", marks=pytest.mark.full),
                 pytest.param("gpt2", marks=pytest.mark.full)]  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_branches_is_what_a_plain_replay_says(branching, architecture):
    assert worst(branching(architecture), 6) < CLOSE


@pytest.mark.full
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_rounded_graph_branches_as_well(branching, precision):
    """Its activations are rounded in blocks of rows, as with chunks: not bit for bit."""
    assert worst(branching("llama", precision), 4) < 0.05


def unmoved(self, chain, rest, length):
    """The path's keys and values stay where they are."""
    self.block.keep(chain, rest)


def seen(self, bias):
    """Siblings see one another."""
    SEE(self, np.zeros_like(bias))


SEE = BranchingGraph._see


@pytest.mark.parametrize(("name", "how"), [("keep", unmoved), ("_see", seen)])
def test_where_a_rule_is_broken_the_rows_are_others(branching, monkeypatch, name, how):
    """The controls: a sibling's keys and values left in place, or looked at."""
    monkeypatch.setattr(BranchingGraph, name, how)
    assert worst(branching(), 2, stale=1.0) > 100 * CLOSE


def test_the_plain_path_is_as_without(branching, bundle):
    """Rows and rollbacks, in chunks that fit and that do not: bit for bit."""
    plain, other = DraftModel(bundle(), threads=1), DraftModel(branching(), threads=1)
    assert other.branches and not plain.branches
    rng = np.random.default_rng(5)
    for count in (3, 1, 1, 20, 1, 2, 40, 1):
        ids = rng.integers(0, 300, count).tolist()
        assert np.array_equal(plain.forward(ids), other.forward(ids))
        keep = max(1, plain.length - int(rng.integers(0, 3)))
        plain.rollback(keep)
        other.rollback(keep)


def test_a_block_has_to_be_settled_before_the_chain_goes_on(branching):
    model = DraftModel(branching(), threads=1)
    model.forward(PROMPT)
    model.branch([3, 4], [ROOT, ROOT])
    with pytest.raises(ValueError, match="keep what of it stands"):
        model.forward([5])
    model.rollback(len(PROMPT))
    model.forward([5])
    with pytest.raises(ValueError, match="context"):
        model.branch([1] * model.context, [ROOT] * model.context)
    with pytest.raises(ValueError, match="context"):
        model.branch([], [])


def test_what_is_no_path_is_refused_and_changes_nothing():
    block = Block()
    assert block.extend([ROOT, 0, ROOT, 2]) == [1, 3, 4, 12]
    for chain, rest in (([1], []), ([0, 2], []), ([0], [2]), ([], [1]), ([0], [1, 1]), ([4], [])):
        with pytest.raises(ValueError, match="of the block"):
            block.keep(chain, rest)
    for parents in ([5], [-2], [4]):
        with pytest.raises(ValueError, match="cannot follow"):
            block.extend(parents)
    assert block.keep([2], [3]) == [2, 3] and len(block) == 1
    assert block.extend([0]) == [3]


def test_windows_and_other_graphs_have_no_branches(tmp_path, tokenizer, model_folder):
    from export import ExportError
    from export.bundle import export_bundle
    from tests.conftest import save_random

    folder = save_random(tmp_path / "model", "mistral", tokenizer, sliding_window=8)
    with pytest.raises(ExportError, match="its layers see 8 tokens back"):
        export_bundle(folder, tmp_path / "out", "fp32", branches=True)
    with pytest.raises(ExportError, match="a static graph has no branches"):
        export_bundle(folder, tmp_path / "out", "fp32", graph="static", branches=True)
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_says_what_its_graph_has_not_is_refused(bundle, branching, tmp_path):
    """Of a stranger: branches in a plain graph, a plain graph with branches, and other graphs."""
    with pytest.raises(BundleError, match="has branches in a portable graph"):
        load_bundle(fake_bundle(tmp_path / "made", graph="portable", branches=True))
    for made, says in ((bundle(), True), (branching(), False)):
        made = load_bundle(made.path)
        made.manifest = msgspec.structs.replace(made.manifest, branches=says)
        with pytest.raises(BundleError, match="cannot be run"):
            DraftModel(made, threads=2)


def written(bundle, folder, mode: str, branches: int) -> tuple[list[int], int]:
    """A text of such a graph and the checkpoint that it comes from; forwards that branched."""
    draft = DraftModel(bundle, threads=1)
    branched = 0
    branch = DraftModel.branch

    def counted(self, ids, parents):
        nonlocal branched
        branched += len(ids) > 1
        return branch(self, ids, parents)

    async def main():
        target = Target.load(str(folder))
        world = World(draft, target, bundle.tokenizer(), draft.context, 0.004, 0.03, draft_row=0.15)
        async with world.device(make_link(LinkProfile(1e7, 1e7, 0.06), seed=1)) as device:
            generation = device.generate(
                PROMPT, max_tokens=60, scheme=Coupled(), sampling=Sampling(1.0), seed=3, mode=mode,
                eos_ids=(), branches=branches,
            )  # fmt: skip
            async for _ in generation:
                pass
            assert not len(draft._graph.block) and draft.length <= len(device.history)
            return generation.tokens

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DraftModel, "branch", counted)
        return run(main()), branched


def test_the_text_of_a_real_graph_is_the_streams(branching, model_folder, monkeypatch):
    """And behind a sibling it drafts what it would have drafted alone: the text, always."""
    bundle, folder = branching(), model_folder("llama")
    alone, none = written(bundle, folder, "stream", 1)
    swap(monkeypatch)
    counts = counting(monkeypatch)
    text, branched = written(bundle, folder, "both", 3)
    assert text == alone and not none and branched > 10
    known, unknown = counts
    assert known > 20 and unknown == 0
