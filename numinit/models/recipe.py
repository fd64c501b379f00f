"""What a recipe is: rules that say which initializer each tensor of a model gets, by its name."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from numinit.engines.spec import Plan
from numinit.initializers import DepthScaled, Initializer, MuP, Padded
from numinit.initializers.wrappers import AtShape, Role
from numinit.models.globs import Globs
from numinit.models.shipped import available
from numinit.show import cut, show
from numinit.stream.dtypes import DTYPES, DType
from numinit.weights.shapes import Axes

__all__ = ["Recipe", "RecipeError", "Rule"]

MAX_STEPS = 1 << 18  # of `Globs`: those of real models are some thousands


class RecipeError(ValueError):
    """A recipe that cannot be read, or that does not fit a model."""


@dataclass(frozen=True)
class Rule:
    """One rule: the names it matches and what they get.

    Attributes
    ----------
    match : tuple of str
        Globs, matched against a tensor's whole name, case and all.
    init : Initializer
        The initializer.
    depth_scaled : bool
        Divide the standard deviation by sqrt(2 L), with L the number of residual layers.
    fans_of : str or None
        Take the shape, and so the fans, of this sibling tensor instead of the tensor's own.
    mup : str or None
        The role in the maximal update parametrization; see `MuP`.
    in_axis : int or tuple of int, or None
        For `mup`: the axes of inputs, of an initializer that has no such field.
    padding_idx : int or None
        Keep this row at zero.
    """

    match: tuple[str, ...]
    init: Initializer
    depth_scaled: bool = False
    fans_of: str | None = None
    mup: Role | None = None
    in_axis: Axes | None = None
    padding_idx: int | None = None

    def matches(self, name: str) -> bool:
        """Whether any glob matches `name`."""
        return Globs(self.match).first(name) is not None


@dataclass(frozen=True)
class Recipe:
    """Rules that say which initializer each tensor of a model gets.

    Attributes
    ----------
    name, source : str
        What it is called, and where its numbers come from.
    text : str
        The TOML text it was parsed from; empty for one made in Python.
    rules : tuple of Rule
        The first rule that matches a name wins.
    layers : tuple of str
        Globs for the prefixes that count as residual layers.
    base : tuple of (str, tuple of int)
        Globs and the shapes of their tensors in the base model, for rules with `mup`; the first
        glob that matches a name wins.
    """

    name: str
    source: str
    text: str
    rules: tuple[Rule, ...]
    layers: tuple[str, ...] = ()
    base: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def plan(
        self, shapes: Mapping[str, Sequence[int]], dtypes: Mapping[str, DType] | None = None
    ) -> dict[str, Plan]:
        """Return the plan of every tensor.

        Parameters
        ----------
        shapes : mapping of str to sequence of int
            Every tensor's name and logical shape.
        dtypes : mapping of str to DType, optional
            Their element types; float32 for those that are left out.

        Returns
        -------
        dict of str to Sampled, ByIndex or Whole
            In the order of `shapes`; fans, siblings and depth are resolved.

        Raises
        ------
        RecipeError
            Naming the first tensor that no rule matches, or whose rule does not fit its shape.

        Examples
        --------
        >>> from numinit.models.recipes import parse
        >>> recipe = parse('rules = [{match = "*", init = "Normal", std = 0.02}]')
        >>> recipe.plan({"w": (2, 3)})
        {'w': Sampled(distribution=Normal(mean=0.0, std=0.02), zeros=None)}
        """
        layers, kinds, single = self._count_layers(shapes), dtypes or {}, DTYPES["float32"]
        globs = [(glob, number) for number, rule in enumerate(self.rules) for glob in rule.match]
        # What a file's globs cost is counted anew; Python's own are ready for the next model.
        automaton = Globs if self.text else _kept_globs
        matching = automaton(tuple(glob for glob, _ in globs))
        base = automaton(tuple(glob for glob, _ in self.base))
        plans = {}
        for name, shape in shapes.items():
            first = matching.first(name)
            if first is None:
                raise RecipeError(
                    f"recipe {show(self.name)} has no rule for {_tensor(name, shapes)}: add one "
                    "that matches its name, or use another recipe (shipped: "
                    f"{', '.join(available('recipes'))})"
                )
            number = globs[first][1]
            rule = self.rules[number]
            try:
                init = self._fitted(rule, name, shapes, layers, base)
                plans[name] = init.plan(tuple(shape), kinds.get(name, single))
            except (TypeError, ValueError, ArithmeticError) as error:
                raise RecipeError(
                    f"recipe {show(self.name)}, rule {number + 1} ({type(rule.init).__name__}) does "
                    f"not fit {_tensor(name, shapes)}: {cut(error)}"
                ) from error
            self._check_steps(matching.steps + base.steps)
        return plans

    def _fitted(
        self,
        rule: Rule,
        name: str,
        shapes: Mapping[str, Sequence[int]],
        layers: int,
        base_globs: Globs,
    ) -> Initializer:
        """A rule's initializer for a tensor."""
        source = name
        if rule.fans_of is not None:
            head, dot, _ = name.rpartition(".")
            source = head + dot + rule.fans_of
            if source not in shapes:
                raise ValueError(f"fans_of needs the tensor {show(source)}; there is none")
        if rule.depth_scaled and not layers:
            raise ValueError(f"depth_scaled, but no name fits layers = {show(self.layers)}")
        init = rule.init
        if rule.mup is not None:
            found = base_globs.first(source)
            if found is None:
                raise ValueError(
                    "mup needs its shape in the base model; the table [base] has no glob that "
                    f"matches {show(source)}"
                )
            init = MuP(init, rule.mup, self.base[found][1], rule.in_axis)
        if rule.depth_scaled:
            init = DepthScaled(init, layers)
        if source != name:
            init = AtShape(init, tuple(shapes[source]))
        return init if rule.padding_idx is None else Padded(init, rule.padding_idx)

    def _check_steps(self, steps: int) -> None:
        """Refuse names and globs that no model has, made to take time; Python's own are trusted."""
        if self.text and steps > MAX_STEPS:
            raise RecipeError(
                f"recipe {show(self.name)}: matching its globs with the tensors' names took "
                f"{steps} steps; at most {MAX_STEPS} are accepted"
            )

    def _count_layers(self, names: Iterable[str]) -> int:
        by_parts: dict[int, list[str]] = {}
        for glob in self.layers:
            by_parts.setdefault(glob.count(".") + 1, []).append(glob)
        found: set[str] = set()
        for parts, globs in by_parts.items():
            matching = Globs(globs)
            last = None
            for name in names:
                if name.count(".") < parts:
                    continue
                head = name.rsplit(".", name.count(".") - parts + 1)[0]
                if head != last and matching.first(head) is not None:  # neighbours share a layer
                    found.add(head)
                last = head
                self._check_steps(matching.steps)
        return len(found)


_kept_globs = functools.lru_cache(4)(Globs)


def _tensor(name: str, shapes: Mapping[str, Sequence[int]]) -> str:
    return f"tensor {show(name)} of shape {show(tuple(shapes[name]))}"
