"""Cost of a configuration: seconds of a training example relative to the default configuration's, by counting work.

    cost = work(config) / work(default),   work of an example = work of an optimiser step / its examples

Work is counted in multiplications. A step passes every batch through the encoder, visits weights and adds what its
techniques add; each states its own numbers beside its code (`minbert.techniques.work`).

    forward    N (12 D^2 + 2 T D) for each layer of N tokens in sequences of T; of the last layer N 2 D^2 where all
               poolings take [CLS] alone
    backward   as much again for the states, and again for the weights, down to the lowest trained layer
    visits     a fixed number of multiplications for each weight that a pass, the optimiser or a mean reads and writes:
               the smaller the batches, the more of them an example pays

Frozen layers count as cached already. The count is a function of the configuration and of a few facts about the data,
so it is equal on every machine. The constants were fitted to one thread of a CPU with native bf16, see
`benchmarks/README.md`. A GPU prices small batches and further passes higher: it is bound by launches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from minbert.encoder.traits import MINILM, Traits
from minbert.techniques.work import Passes, Trained

if TYPE_CHECKING:
    from minbert.config import Config
    from minbert.data.files import Corpus
    from minbert.stages.stages import Stage, Stages
    from minbert.tasks import Task
    from minbert.techniques.combiners import Combiner

WORDS = 30_522
"""Rows of the word embeddings, those of BERT's vocabulary."""

PIECES = 1.2
"""Word pieces of a word between blanks: 1.20 to 1.25 in the class data, 1.12 to 1.16 in the sample corpus."""

READ = 40.0
"""Multiplications that take as long as reading one weight for a forward pass, rounded to bf16."""

GRADIENT = 250.0
"""Multiplications that take as long as adding to one weight's gradient in a backward pass."""

OPTIMISER = 60.0
"""Multiplications that take as long as clipping and moving one weight."""

MEAN = 30.0
"""Multiplications that take as long as updating a running mean of one weight."""

SURGERY = 250.0
"""Multiplications that take as long as holding one weight's gradient of one task apart and combining it."""

BATCH = 5e7
"""Multiplications that take as long as the rest of a batch: its rows, its head, its loss."""

ATTENTION_DROPOUT, HIDDEN_DROPOUT = 0.09, 0.03
"""Share by which masks prolong a pass."""


@dataclass(frozen=True)
class StageRows:
    """Rows that a stage reads."""

    rows: int
    tokens: float
    """Mean word pieces of a row, special tokens included."""

    @staticmethod
    def of(stage: Stage, corpus: Corpus) -> StageRows:
        """The rows of a stage in a corpus; their word pieces are estimated from their words. Raises DataError."""
        texts = stage.texts(corpus)
        return StageRows(len(texts), _mean_tokens(texts, len(texts[0]) + stage.sequences))


@dataclass(frozen=True)
class Workload:
    """Facts about a run that the cost of its configurations depends on."""

    tasks: Mapping[str, Task]
    rows: Mapping[str, int]
    """Training rows of each task."""
    tokens: Mapping[str, float]
    """Mean word pieces of a training row of each task, special tokens included."""
    base: Traits = MINILM
    stages: Mapping[str, StageRows] = field(default_factory=dict)
    """Rows of each kind of stage that a configuration of the run may have."""

    @staticmethod
    def of(corpus: Corpus, base: Traits = MINILM, stages: Iterable[Stage] = ()) -> Workload:
        """The workload of a corpus; word pieces are estimated from words.

        Where `stages` of one kind read different rows, those with the most word pieces stand for all of them. Raises
        DataError.
        """
        rows = {name: corpus.size(name, "train") for name in corpus.tasks}
        tokens = {
            name: _mean_tokens(corpus.rows[name, "train"].texts, len(task.columns) + 1)
            for name, task in corpus.tasks.items()
        }
        return Workload(corpus.tasks, rows, tokens, base, _stage_rows(stages, corpus))

    @cached_property
    def unit(self) -> float:
        """Work of an example with the default configuration."""
        from minbert.config import Config

        return work(Config.from_dict({}, self.tasks, self.base), self)


def _stage_rows(stages: Iterable[Stage], corpus: Corpus) -> dict[str, StageRows]:
    """Rows of each kind of stage: those with the most word pieces. Raises DataError."""
    from minbert.stages.stages import reading

    largest: dict[str, StageRows] = {}
    for stage in {reading(stage): stage for stage in stages}.values():
        found = StageRows.of(stage, corpus)
        largest[stage.kind] = max(largest.get(stage.kind, found), found, key=lambda each: each.rows * each.tokens)
    return largest


def _mean_tokens(rows: Sequence[tuple[str, ...]], special: int) -> float:
    """Mean word pieces of rows with so many special tokens each, estimated from their words."""
    words = sum(len(text.split()) for row in rows for text in row)
    return PIECES * words / len(rows) + special


def cost(config: Config, workload: Workload) -> float:
    """Expected seconds of a training example relative to the default configuration over the same tasks, without stages.

    The configuration must have been loaded over the workload's tasks.
    """
    return work(config, workload) / workload.unit


def stage_examples(stage: Stage, rows: int, tokens: float, workload: Workload) -> float:
    """Cost of a stage over `rows` rows of `tokens` word pieces on average, in examples of the default configuration.

    A stage trains the whole encoder.
    """
    base = workload.base
    tokens = min(tokens, stage.max_length * stage.sequences)
    passes = tokens * _through(base, 0, tokens / stage.sequences) * _masked(stage.dropout, stage.dropout)
    passes += tokens * stage.multiplications(base.width, WORDS)
    layers = base.layers * _layer_weights(base)
    step = (READ + GRADIENT + OPTIMISER) * layers + OPTIMISER * _word_weights(base) + BATCH
    return stage.epochs * rows * (3 * passes + step / stage.batch_size) / workload.unit


def stage_costs(stages: Stages, workload: Workload) -> dict[tuple[Stage, ...], float]:
    """Cost of each stage in examples of the default configuration, by the chain of stages that ends with it.

    The result of a chain is computed once for all trials (`minbert.stages.chain`). Stages of a kind whose rows the
    workload does not have are left out.
    """
    chain = stages.chain()
    return {
        chain[:end]: stage_examples(stage, read.rows, read.tokens, workload)
        for end, stage in enumerate(chain, start=1)
        if (read := workload.stages.get(stage.kind)) is not None
    }


def work(config: Config, workload: Workload) -> float:
    """Multiplications of a training example; whatever else takes time counts as those that take as long."""
    from minbert.techniques.mixings import Mix

    sizes = {
        name: round(rows * (1 + config.augmentation.amount)) if workload.tasks[name].augmented else rows
        for name, rows in workload.rows.items()
    }
    batches = config.mixing.batches(Mix(sizes, 0, config.batch_size))
    draws = config.optimizer.accumulation
    examples = draws * sum(number * config.batch_size[name] for name, number in batches.items())
    step = _Step(config, workload)
    return (draws * step.draw(batches) + step.update()) / examples


@dataclass(frozen=True)
class _Step:
    """Work of the parts of an optimiser step."""

    config: Config
    workload: Workload

    @cached_property
    def trained(self) -> Trained:
        return self.config.adapter.trained(self.workload.base, len(self.workload.tasks))

    @cached_property
    def combiner(self) -> Combiner:
        return self.config.mixing.combine.build()

    @cached_property
    def weights(self) -> int:
        """Number of trained weights of the encoder."""
        base, trained = self.workload.base, self.trained
        layers = (base.layers - trained.still) * _layer_weights(base) * trained.layers
        return layers + _word_weights(base) * trained.words + trained.added

    def update(self) -> float:
        """Work of the optimiser, and of running means of the weights."""
        phases = len(self.combiner.phases)
        means = phases * self.config.proximal.means + self.config.average.means
        return (phases * OPTIMISER + means * MEAN) * self.weights

    def draw(self, batches: Mapping[str, float]) -> float:
        """Work of a draw with so many batches of each task on average."""
        phases, total = len(self.combiner.phases), sum(batches.values())
        passes = sum(number * self._passes(group) for group, number in self._groups(batches))
        measured = sum(number * self._measured(group) for group, number in self._groups(batches))
        held = self.combiner.surgeries * total * SURGERY * self.weights
        return phases * (passes + total * BATCH) + measured + held

    def _groups(self, batches: Mapping[str, float]) -> Iterator[tuple[list[str], float]]:
        """Tasks that share a forward pass, and how many such passes a draw has (`minbert.training.step_losses`)."""
        from minbert.techniques.regularizers import NoRegularizer

        config = self.config
        apart = config.adapter.per_task or config.mixing.combine.separate_backward or sum(batches.values()) <= 1.0
        drawn = [name for name, number in batches.items() if number > 0]
        single = [name for name in drawn if apart or not isinstance(config.regularizer[name], NoRegularizer)]
        yield from (([name], batches[name]) for name in single)
        if together := [name for name in drawn if name not in single]:
            yield together, 1.0

    def _passes(self, group: Sequence[str]) -> float:
        """Work of the passes over the batches of a group, those of penalties included."""
        config, base = self.config, self.workload.base
        own, proximal = config.regularizer[group[0]], config.proximal.passes
        penalty = own.passes if len(group) == 1 else Passes()
        begin = 0 if own.moves_words else config.adapter.frozen_layers(base.layers)
        forward = self._states(group, begin) + READ * (base.layers - begin) * _layer_weights(base)
        return (
            (1 + penalty.forward + proximal.forward) * forward
            + (1 + penalty.whole + proximal.whole) * self._backward(group)
            + (penalty.to_words + proximal.to_words) * self._states(group, 0)
        )

    def _backward(self, group: Sequence[str]) -> float:
        """Work of a backward pass to everything that is trained."""
        base, trained = self.workload.base, self.trained
        states = self._states(group, trained.still)
        if trained.layers:
            return 2 * states + GRADIENT * (base.layers - trained.still) * _layer_weights(base)
        return states + self._tokens(group) * trained.multiplications

    def _measured(self, group: Sequence[str]) -> float:
        """Work of a balance that measures each task's gradient in the last layer."""
        top = self.workload.base.layers - 1
        return len(group) * 2 * self._states(group, top) * self.config.mixing.balance.measures_gradients

    def _states(self, group: Sequence[str], begin: int) -> float:
        """Work of a pass over the states of a group's batches, from layer `begin` to the top."""
        from minbert.encoder.poolings import TOKEN_POOLING

        config, base = self.config, self.workload.base
        if begin == base.layers:
            return 0.0
        encodings = {name: config.encoding[name] for name in group}
        firsts = all(TOKEN_POOLING[encoding.pooling] == "cls" for encoding in encodings.values())
        masks = _masked(config.dropout.hidden, config.dropout.attention)
        total = 0.0
        for name in group:
            tokens = self._tokens([name])
            length = tokens / config.batch_size[name] / (2 if encodings[name].paired else 1)
            total += tokens * (_through(base, begin, length, firsts) * masks + self.trained.multiplications)
        return total

    def _tokens(self, group: Sequence[str]) -> float:
        """Word pieces of one batch of each task of a group."""
        config, total = self.config, 0.0
        for name in group:
            longest = config.max_length[name] * (2 if config.encoding[name].paired else 1)
            total += config.batch_size[name] * min(self.workload.tokens[name], longest)
        return total


def _through(base: Traits, begin: int, length: float, firsts: bool = False) -> float:
    """Multiplications of a token of a sequence of `length`, from layer `begin` to the top.

    With `firsts` the last layer computes queries and all that follows for the first token of a sequence alone.
    """
    width = base.width
    layer = 12 * width**2 + 2 * width * length
    last = 2 * width**2 + (10 * width**2 + 2 * width * length) / length if firsts else layer
    return (base.layers - begin - 1) * layer + last


def _layer_weights(base: Traits) -> int:
    """Weights of the linear layers of an encoder layer."""
    return 12 * base.width**2


def _word_weights(base: Traits) -> int:
    return WORDS * base.width


def _masked(hidden: float, attention: float) -> float:
    """Factor of a pass that draws dropout masks at these rates."""
    return 1 + HIDDEN_DROPOUT * (hidden > 0) + ATTENTION_DROPOUT * (attention > 0)
