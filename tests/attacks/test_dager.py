import dataclasses
import logging

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mibench.access import LocalTraining
from mibench.attacks.dager import Dager
from mibench.attacks.families.span_reader import logit
from mibench.data import InputSpec
from mibench.errors import IncompatibleCellError
from mibench.knowledge import Knowledge
from mibench.model import Attention, Classifier, Rows
from mibench.optim.spans import Span, numerical_rank
from mibench.targets.minilm import PaddedEntry
from mibench.targets.mlp import Mlp
from mibench.targets.transformer import EncoderLayer, Positions, ReadOut, TextEncoder, TokenEntry, Transformer
from mibench.tasks.instance import InstanceGoal

WIDTH, WORDS, TOKENS = 64, 200, 6


class Words:
    """Special tokens as WordPiece has them; a text is its ids."""

    special = (0, 1, 2, 3)


class Block(nn.Module):
    """Causal attention with one matrix for query, key and value, behind a layer norm, and a perceptron."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.joint, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, h):
        query, key, value = self.joint(self.norm1(h)).unflatten(2, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        later = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).triu(1)
        weights = (query @ key.transpose(2, 3) / 4).masked_fill(later, -torch.inf).softmax(-1)
        h = h + self.out((weights @ value).transpose(1, 2).flatten(2))
        return h + self.down(nn.functional.gelu(self.up(self.norm2(h))))


class Causal(Classifier):
    """Two such blocks, whose last token is classified."""

    def __init__(self):
        super().__init__()
        self.normalise = TokenEntry(WORDS, WIDTH)
        self.positions = nn.Parameter(torch.empty(TOKENS, WIDTH))
        self.stages = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(WIDTH, 2)
        for table in (self.normalise.table, self.positions):
            nn.init.normal_(table)

    def blocks(self, x):
        h = self.normalise(x)
        h = h + self.positions[: h.shape[1]]
        return tuple(h := block(h) for block in self.stages)

    def pool(self, last):
        return last[:, -1]

    def attention(self):
        parts = {"query": (0, WIDTH), "value": (2 * WIDTH, 3 * WIDTH), "joint": (0, None)}
        names = [f"stages.{number}.joint.weight" for number in (0, 1)]

        def entering(embedded, block, first):
            h = embedded + self.positions[first : first + embedded.shape[1]]
            for one in self.stages[:block]:
                h = one(h)
            return self.stages[block].norm1(h)

        return Attention(
            [{kind: (Rows(name, *rows),) for kind, rows in parts.items()} for name in names], entering, True
        )


class Masked(TextEncoder):
    """A small encoder that leaves padding out of attention."""

    def __init__(self, spec):
        super().__init__(spec=spec)
        self.normalise = PaddedEntry(spec.vocabulary, WIDTH, 0)
        layers = (EncoderLayer(WIDTH, 4, 128, masked=True) for _ in range(3))
        self.stages = nn.ModuleList([Positions(spec.shape[0], WIDTH, 2, masked=True), *layers, ReadOut(WIDTH)])
        self.head = nn.Linear(WIDTH, 2)
        for value in self.parameters():
            if value.dim() > 1:
                nn.init.normal_(value, std=0.15)


def spec_of(tokens=TOKENS, words=WORDS, known=False):
    return InputSpec("text", (tokens,), 2, vocabulary=words, padding=0, tokenizer=Words() if known else None)


@pytest.fixture
def causal(one_client):
    """Returns a client of three texts of six tokens under the causal model, and its texts."""

    def make(seed=0, batch=3):
        torch.manual_seed(seed)
        model = Causal().double()
        x, y = torch.randint(1, WORDS, (batch, TOKENS)), torch.randint(2, (batch,))
        return one_client(model, x, y, spec_of()), x

    return make


@pytest.fixture
def masked(one_client):
    """Returns a client of texts of several lengths under an encoder with a mask, and its texts."""

    def make(lengths=(5, 7, 7), seed=0):
        torch.manual_seed(seed)
        spec = spec_of(10, known=True)
        model = Masked(spec).double().eval()
        x = torch.zeros(len(lengths), 10, dtype=torch.long)
        for text, size in zip(x, lengths, strict=True):
            text[:size] = torch.cat([torch.tensor([2]), torch.randint(4, WORDS, (size - 2,)), torch.tensor([3])])
        return one_client(model, x, torch.randint(2, (len(lengths),)), spec), x

    return make


def read(view, seed=0, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    return Dager(**options)(view, Knowledge(), goal, seed=seed).reconstruction


def reader_of(view, **options):
    attack = Dager(**options)
    return attack.reader(view, view.model.attention(), 0)


def exact(result, x):
    """Whether the texts of an answer are those of ``x``, each as often, in any order."""
    return sorted(map(tuple, result.values.tolist())) == sorted(map(tuple, x.tolist())) and bool(result.valid.all())


def test_every_text_of_a_causal_model_comes_back(causal):
    for seed in (0, 1, 2):
        view, x = causal(seed)
        result = read(view)
        assert exact(result, x) and float(result.loss.max()) < 1e-6


def test_the_query_alone_loses_the_first_token_of_causal_attention(causal):
    view, x = causal()
    message = view.messages[0]["stages.0.joint.weight"]
    ranks = [numerical_rank(message[rows], 1e-9) for rows in (slice(0, WIDTH), slice(2 * WIDTH, None))]
    distinct = [len(set(x[:, position].tolist())) for position in range(TOKENS)]
    assert ranks == [sum(distinct[1:]), sum(distinct)]
    assert not read(view, reads="query").valid.any()


def test_candidates_are_the_tokens_of_the_batch_and_the_true_ones_are_among_them(causal):
    view, x = causal()
    found = reader_of(view).tokens()
    assert len(found) == TOKENS
    for position, tokens in enumerate(found):
        assert set(x[:, position].tolist()) <= set(tokens.tolist()) <= set(x.flatten().tolist())
    assert max(map(len, found)) < 10


def test_a_batch_of_too_many_tokens_is_not_guessed(causal, caplog):
    view, _ = causal(batch=8)  # 48 tokens, of which 44 may be
    with caplog.at_level(logging.WARNING):
        result = read(view)
    assert not result.valid.any() and "its tokens span 48 dimensions, and fewer than 44" in caplog.text
    assert exact(read(causal(batch=7)[0]), causal(batch=7)[1])
    assert reader_of(view, rank_cutoff=10) is not None


def test_the_rank_is_the_largest_one_of_all_blocks_and_spans_are_of_the_first(causal):
    view, _ = causal()
    message = dict(view.messages[0])
    more = torch.randn(192, 20).double() @ torch.randn(20, 64).double()
    message["stages.1.joint.weight"] = message["stages.1.joint.weight"] + more
    ranks = [
        one.spans[0].basis.shape[1] for one in map(reader_of, (view, dataclasses.replace(view, messages=[message])))
    ]
    assert ranks[1] >= ranks[0] + 19
    assert reader_of(dataclasses.replace(view, messages=[message])).spans[1].basis.shape[1] == ranks[1]


def test_the_tolerance_is_a_share_of_the_largest_value_and_falls_with_the_batch(causal):
    for batch, share in ((2, 1e-5), (3, 1e-6), (17, 1e-7)):
        view, _ = causal()
        weak = torch.diag(torch.tensor([1e3] * 5 + [2e3 * share] * 3 + [2e2 * share] * 3 + [0.0] * 53).double())
        message = {name: weak.repeat(3, 1) for name in ("stages.0.joint.weight", "stages.1.joint.weight")}
        reader = reader_of(dataclasses.replace(view, messages=[message], batch_size=batch))
        assert reader.spans[0].basis.shape == (64, 8)


def test_distances_are_those_to_the_rows(causal):
    basis = torch.linalg.qr(torch.randn(10, 4).double()).Q
    span = Span.of(torch.randn(7, 4).double() @ basis.T, 4)
    inside, across = basis @ torch.randn(4).double(), torch.linalg.qr(torch.cat([basis, torch.eye(10)], 1)).Q[:, 5]
    torch.testing.assert_close(span.distance(torch.stack([5 * inside, across])), torch.tensor([0.0, 1.0]).double())
    angle = span.distance(inside / inside.norm() + 0.75 * across)
    assert float(angle) == pytest.approx(0.6)
    both = torch.stack([across, inside])
    near, apart = span.close(2, lambda rows: both[rows], lambda rows: both[rows], 1e-5)
    assert near.tolist() == [1] and float(apart) < 1e-12


def test_the_vocabulary_is_tested_in_float32_and_again_in_float64():
    span, given = Span.of(torch.eye(8).double(), 3), torch.eye(8)[:5].clone()
    asked = []

    def precise(rows):
        asked.extend(rows.tolist())
        return given[rows].double() + torch.tensor([0.0, 1e-4, 1e-7])[rows, None].double() * torch.eye(8)[7]

    near, _ = span.close(5, lambda rows: given[rows], precise, 1e-5)
    assert near.tolist() == [0, 2] and asked == [0, 1, 2]


def test_texts_end_at_their_separator_and_padding_takes_no_part(masked):
    view, x = masked()
    assert len(reader_of(view).tokens()) == 7
    assert exact(read(view), x)


def test_random_texts_rank_candidates_and_ends(masked):
    """True tokens come before those of other positions, and ends of the texts before others."""
    view, x = masked((6, 6, 8))
    words, true = x[x > 3].unique(), [x[:, place][x[:, place] > 3] for place in range(8)]
    candidates = [torch.tensor([2]), *(torch.cat([torch.tensor([3]), words]) for _ in range(6)), torch.tensor([3])]
    with torch.no_grad():
        ranked, ends = reader_of(view, contexts=32).ranked(candidates)
    assert ends[0] == 5 and ends.index(7) <= 3, ends
    for place in range(1, 5):
        found = ranked[place][ranked[place] > 3][:3]
        assert len(set(found.tolist()) & set(true[place].tolist())) >= 2


def test_two_texts_of_the_same_length_that_share_words_are_told_apart(masked, one_client):
    view, x = masked((7, 7), 1)
    x[1, 2:4] = x[0, 2:4]
    view = one_client(view.model, x, torch.tensor([0, 1]), view.spec)
    assert exact(read(view), x)


def test_what_is_missing_is_filled_with_other_texts_none_like_another(masked):
    view, x = masked((5, 7, 7), 2)
    reader = reader_of(view, max_combinations=400)
    one, two = x[1], x[1].clone()
    two[4] = 9
    reader.others = [(two, 0.2), (x[0], 0.3), (x[2], 0.4)]
    reader.exact_texts = lambda candidates: [(one, 0.0)]
    assert [text for text, _ in reader.texts()] == [one.tolist(), x[0].tolist(), x[2].tolist()]
    assert reader.alike(two[None], one) and not reader.alike(x[2][None], one)


def test_a_spent_budget_leaves_the_closest_texts_and_says_so(masked, caplog):
    view, x = masked((7, 7, 7, 7), 3)
    with caplog.at_level(logging.WARNING):
        result = read(view, max_combinations=150)
    assert "attack.max_combinations=150 combinations" in caplog.text
    assert bool(result.valid.any()) and not exact(result, x) and float(result.loss[result.valid].max()) > 1e-3


def test_a_wrong_text_is_not_accepted(masked):
    view, x = masked()
    reader = reader_of(view)
    wrong = x.clone()
    wrong[:, 2] = x[:, 2].roll(1)
    texts = torch.cat([x, wrong])
    assert reader.accepted(texts, reader.apart(texts)).tolist() == [True] * 3 + [False] * 3


def test_a_message_of_several_steps_has_a_higher_rank_and_wider_thresholds(causal):
    view, _ = causal()
    later = dataclasses.replace(view, deltas=True, local=LocalTraining(2, 0, 0.1))
    assert [reader_of(one).bounds for one in (view, later)] == [(1e-5, 1e-3), (5e-3, 5e-3)]
    assert [reader_of(one).spans[0].basis.shape[1] for one in (view, later)] == [18, 44]
    assert reader_of(later, rank_raise=7).spans[0].basis.shape[1] == 25


def test_texts_behind_two_local_steps_come_back(one_client):
    torch.manual_seed(0)
    spec = spec_of(8, known=True)
    model = Transformer(spec=spec, width=96, heads=4, hidden=128).double().eval()
    x = torch.tensor([[2, 50, 60, 70, 3, 0, 0, 0], [2, 80, 90, 100, 110, 120, 3, 0]])
    view = one_client(model, x, torch.tensor([0, 1]), spec)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    for _ in range(2):
        named = dict(model.named_parameters())
        step = torch.autograd.grad(cross_entropy(model(x), torch.tensor([0, 1])), list(named.values()))
        with torch.no_grad():
            for value, change in zip(named.values(), step, strict=True):
                value -= 1e-4 * change
    moved = dict(model.named_parameters())
    delta = {name: value - moved[name].detach() for name, value in start.items()}
    view = dataclasses.replace(view, messages=[delta], deltas=True, local=LocalTraining(2, 0, 1e-4))
    assert exact(read(view, rank_raise=20), x)


def test_outliers_are_looked_for_in_noise(causal):
    """First tokens lie five deviations below the mean; of later ones the closest 50 a text stay, or 5 % of all."""
    view, x = causal(batch=1)
    noise = torch.Generator().manual_seed(0)
    noisy = {
        name: value + 1e-3 * value.std() * torch.randn(value.shape, generator=noise).double()
        for name, value in view.messages[0].items()
    }
    noisy = dataclasses.replace(view, messages=[noisy])
    assert not read(noisy).valid.any(), "of full rank"
    assert exact(read(noisy, noisy=True, rank_cutoff=56), x)
    reader = reader_of(noisy, noisy=True, rank_cutoff=56)
    apart = torch.stack([
        span.distance(reader.vectors(reader.exact, torch.arange(WORDS)[:, None], block)[:, 0])
        for block, span in enumerate(reader.spans)
    ])  # fmt: skip
    value = logit(apart).mean(0)
    for deviations in (5.0, 0.3):
        reader.attack.outlier = deviations
        order = value.argsort()[:50]
        wanted = order[value[order] < value.mean() - deviations * value.std()].tolist()
        assert reader.outlying(0).tolist() == wanted and wanted[0] == int(x[0, 0])
    second = reader.vectors(reader.exact, torch.arange(WORDS)[:, None], 0, 1)[:, 0]
    assert reader.outlying(1).tolist() == reader.spans[0].distance(second).argsort()[:50].tolist()
    assert float(logit(torch.tensor(0.25))) == pytest.approx(-1.0986, abs=1e-4)


def test_models_and_messages_without_attention_are_refused(digits_view, causal):
    view, _ = digits_view(Mlp, 1)
    with pytest.raises(IncompatibleCellError, match="target=transformer"):
        read(view)
    view, _ = causal()
    lacking = {name: value for name, value in view.messages[0].items() if "joint" not in name}
    with pytest.raises(IncompatibleCellError, match=r"stages\.0\.joint\.weight, which clients do not send"):
        read(dataclasses.replace(view, messages=[lacking]))


def test_a_text_that_no_loss_ends_gets_its_end(causal):
    view, _ = causal()
    view = dataclasses.replace(view, spec=spec_of(known=True))
    assert reader_of(view).closed(torch.tensor([2, 9])) == [2, 9, 3]
    assert reader_of(view).closed(torch.tensor([2, 3])) == [2, 3]


@pytest.fixture(scope="module")
def sst2(data_root):
    pytest.importorskip("tokenizers", reason="pip install 'mibench[text]'")
    if not (data_root / "SST-2").is_dir():
        pytest.skip(f"{data_root} holds no SST-2")
    from mibench.datasets.sst2 import Sst2

    return Sst2(data_root=data_root, private_train=40, private_test=10).load()


@pytest.mark.parametrize(("first", "size"), [(0, 1), (0, 2), (20, 4)])
def test_real_sentences_come_back_from_float32(sst2, one_client, first, size):
    torch.manual_seed(0)
    rows = slice(first, first + size)
    x, y = sst2.private.train.x[rows], sst2.private.train.y[rows]
    assert exact(read(one_client(Transformer(spec=sst2.spec).eval(), x, y, sst2.spec)), x)
