"""What a recipe is: rules that say which initializer each tensor of a model gets, by its name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from numinit.engines.spec import Plan
from numinit.initializers import DepthScaled, Initializer, MuP, Padded
from numinit.initializers.formulated import bound, formulas_of
from numinit.initializers.parts import norms
from numinit.initializers.wrappers import AtShape, Role
from numinit.models.globs import Globs, captured, filled
from numinit.models.shipped import available
from numinit.show import cut, show
from numinit.stream.dtypes import DTYPES, DType
from numinit.weights.shapes import Axes

__all__ = ["Made", "Recipe", "RecipeError", "Rule"]

MAX_STEPS = 1 << 18  # of `Globs`: those of real models are some thousands
MAX_SLOW = 1 << 11  # operations of formulas that take some hundred microseconds
MAX_COMPARED = 1 << 25  # characters, to know what the wildcards of a glob stand for
MAX_TIES = 16  # from one tensor to the next
#: The version of the recipes' meaning. In version 1 all layers of a model were one stack, and rules
#: that match nothing were no errors.
VERSION = 2


class RecipeError(ValueError):
    """A recipe that cannot be read, or that does not fit a model."""


@dataclass(frozen=True)
class Rule:
    """One rule: the names it matches and what they get.

    It has one of `init`, `same_as` and `norm_of`. A name of another tensor may be that of a sibling,
    such as "weight" for the tensor "fc.bias", or a whole name. In either, the n-th ``*`` stands for
    what the n-th wildcard of the glob matched.

    Attributes
    ----------
    match : tuple of str
        Globs, matched against a tensor's whole name, case and all. A string is one glob.
    init : Initializer or None
        The initializer.
    depth_scaled : bool
        Divide the standard deviation by sqrt(2 L), with L the number of layers of the tensor's
        stack.
    fans_of : str or None
        Take the shape, and so the fans, of this tensor instead of the tensor's own.
    mup : str or None
        The role in the maximal update parametrization; see `MuP`.
    in_axis : int or tuple of int, or None
        For `mup`: the axes of inputs, of an initializer that has no such field.
    padding_idx : int or tuple of int, or None
        Keep these rows at zero.
    same_as : str or None
        The tensor has the very values of this one.
    norm_of : str or None
        The tensor has the norms of this one; see `NormOf`.
    dtype : str or None
        The element type, whichever is asked for the whole model; "keep" for the source's own.
    optional : bool
        Whether the rule, and each of its globs, may match nothing.
    """

    match: tuple[str, ...]
    init: Initializer | None = None
    depth_scaled: bool = False
    fans_of: str | None = None
    mup: Role | None = None
    in_axis: Axes | None = None
    padding_idx: int | tuple[int, ...] | None = None
    same_as: str | None = None
    norm_of: str | None = None
    dtype: str | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.match, str):
            object.__setattr__(self, "match", (self.match,))

    def matches(self, name: str) -> bool:
        """Whether any glob matches `name`."""
        return Globs(self.match).first(name) is not None


class Made(NamedTuple):
    """How one tensor is made."""

    plan: Plan
    source: str
    """The name whose key it is drawn from: the tensor's own unless it follows from another."""
    rule: int
    """The index of the rule."""
    others: tuple[str, ...] = ()
    """The names of the other tensors that it was made from, or has the fans of."""
    layered: bool = False
    """Whether it depends on how many layers the model has."""


class Place(NamedTuple):
    """Where in a model a tensor is."""

    layers: int | None
    """How many layers its stack has."""
    layer: int | None
    """The number of its own layer."""
    problem: str = ""
    """Why `layers` is unknown."""


@dataclass(frozen=True)
class Recipe:
    """Rules that say which initializer each tensor of a model gets.

    Attributes
    ----------
    name, source : str
        What it is called, and where its numbers come from.
    text : str
        The TOML text it was parsed from; empty for one made in Python. It is not compared.
    rules : tuple of Rule
        The first rule that matches a name wins.
    layers : tuple of str
        Globs for the prefixes that count as layers. Layers whose names differ in a last number only
        are one stack.
    base : tuple of (str, tuple of int)
        Globs and the shapes of their tensors in the base model, for rules with `mup`; the first
        glob that matches a name wins.
    constants : tuple of (str, float)
        Names that formulas may use.
    depths : tuple of int
        How many layers a stack of each glob of `layers` has; without globs, one number for all
        tensors. Empty: they are counted.
    optional : bool
        Whether rules, globs and entries of `base` may match nothing.
    version : int
        See `VERSION`; only files know of earlier ones.
    """

    name: str
    source: str
    text: str = field(compare=False)
    rules: tuple[Rule, ...]
    layers: tuple[str, ...] = ()
    base: tuple[tuple[str, tuple[int, ...]], ...] = ()
    constants: tuple[tuple[str, float], ...] = ()
    depths: tuple[int, ...] = ()
    optional: bool = False
    version: int = field(default=VERSION, compare=False)

    def plan(
        self, shapes: Mapping[str, Sequence[int]], dtypes: Mapping[str, DType] | None = None
    ) -> dict[str, Plan]:
        """Return the plan of every tensor.

        A tensor that follows from another is drawn from that one's key; see `made`.

        Parameters
        ----------
        shapes : mapping of str to sequence of int
            Every tensor's name and logical shape.
        dtypes : mapping of str to DType, optional
            Their element types; float32 for those that are left out.

        Returns
        -------
        dict of str to Sampled, ByIndex, Whole or Joined
            In the order of `shapes`; fans, siblings and depth are resolved.

        Raises
        ------
        RecipeError
            Naming the first tensor that no rule matches, or whose rule does not fit its shape; or a
            rule or a glob that matches nothing.

        Examples
        --------
        >>> from numinit.models.recipes import parse
        >>> recipe = parse('rules = [{match = "*", init = "Normal", std = 0.02}]')
        >>> recipe.plan({"w": (2, 3)})
        {'w': Sampled(distribution=Normal(mean=0.0, std=0.02), zeros=None)}
        """
        return {name: made.plan for name, made in self.made(shapes, dtypes).items()}

    def made(
        self, shapes: Mapping[str, Sequence[int]], dtypes: Mapping[str, DType] | None = None
    ) -> dict[str, Made]:
        """Return the plan of every tensor, the name that its key is folded with, and its rule.

        Parameters
        ----------
        shapes, dtypes
            See `plan`.

        Returns
        -------
        dict of str to Made
            In the order of `shapes`.

        Raises
        ------
        RecipeError
            As `plan`.

        Examples
        --------
        >>> from numinit.models.recipes import parse
        >>> rules = '{match = "a", init = "Normal"}, {match = "b", same_as = "a"}'
        >>> made = parse(f"rules = [{rules}]").made({"a": (2,), "b": (2,)})
        >>> made["b"].source, made["b"].rule
        ('a', 1)
        """
        return _Planning(self, shapes, dtypes or {}).made()

    def of_each_layer(self, names: Iterable[str]) -> list[str]:
        r"""Return the name of one tensor of each layer; they tell how many layers a model has.

        Parameters
        ----------
        names : iterable of str
            Of all tensors of the model.

        Returns
        -------
        list of str

        Examples
        --------
        >>> from numinit.models.recipes import parse
        >>> recipe = parse('layers = "h.*"\nrules = [{match = "*", init = "Ones"}]')
        >>> recipe.of_each_layer(["h.0.w", "h.0.b", "h.1.w", "norm"])
        ['h.0.w', 'h.1.w']
        """
        one: dict[str, str] = {}
        for name, (_, head) in _heads(self, names).items():
            one.setdefault(head, name)
        return list(one.values())

    def dtypes(self, names: Iterable[str]) -> dict[str, str]:
        """Return the `dtype` of those tensors whose rule has one.

        Parameters
        ----------
        names : iterable of str

        Returns
        -------
        dict of str to str

        Examples
        --------
        >>> from numinit.models.recipes import parse
        >>> recipe = parse('rules = [{match = "*", init = "Ones", dtype = "keep"}]')
        >>> recipe.dtypes(["w"])
        {'w': 'keep'}
        """
        if all(rule.dtype is None for rule in self.rules):
            return {}
        globs = [(glob, rule) for rule in self.rules for glob in rule.match]
        matching, found = Globs(glob for glob, _ in globs), {}
        for name in names:
            first = matching.first(name)
            if first is not None and (dtype := globs[first][1].dtype) is not None:
                found[name] = dtype
            self._check_steps(matching.steps)
        return found

    def _check_steps(self, steps: int) -> None:
        """Refuse names and globs that no model has, made to take time; Python's own are trusted."""
        if self.text and steps > MAX_STEPS:
            raise RecipeError(
                f"recipe {show(self.name)}: matching its globs with the tensors' names took "
                f"{steps} steps; at most {MAX_STEPS} are accepted"
            )


class _Planning:
    """A recipe on its way to the plans of a model's tensors."""

    def __init__(
        self, recipe: Recipe, shapes: Mapping[str, Sequence[int]], dtypes: Mapping[str, DType]
    ) -> None:
        self._recipe, self._shapes, self._dtypes = recipe, shapes, dtypes
        self._globs = [(g, number) for number, rule in enumerate(recipe.rules) for g in rule.match]
        self._base = Globs(glob for glob, _ in recipe.base)
        names = [{n for f in formulas_of(rule.init) for n in f.names} for rule in recipe.rules]
        self._uses_layers = [
            rule.depth_scaled or bool(own & {"layers", "layer"})
            for rule, own in zip(recipe.rules, names, strict=True)
        ]
        self._kept: dict[object, Plan] = {}
        self._others: tuple[str, ...] = ()  # of the tensor that is being planned
        self._layered = False
        self._slow = self._compared = 0

    def made(self) -> dict[str, Made]:
        recipe, shapes = self._recipe, self._shapes
        matching = Globs(glob for glob, _ in self._globs)
        self._first: dict[str, int] = {}
        for name in shapes:
            first = matching.first(name)
            recipe._check_steps(matching.steps)
            if first is None:
                raise RecipeError(
                    f"recipe {show(recipe.name)} has no rule for {self._tensor(name)}: add one "
                    "that matches its name, or use another recipe (shipped: "
                    f"{', '.join(available('recipes'))})"
                )
            self._first[name] = first
        if any(self._uses_layers):
            self._places = _places(recipe, shapes)
        made = {}
        for name in shapes:
            number = self._globs[self._first[name]][1]
            self._others, self._layered = (), False
            try:
                plan, source = self._follow(name, self._dtype(name), ())
            except (TypeError, ValueError, ArithmeticError) as error:
                kind = recipe.rules[number].init
                what = f" ({type(kind).__name__})" if kind is not None else ""
                raise RecipeError(
                    f"recipe {show(recipe.name)}, rule {number + 1}{what} does not fit "
                    f"{self._tensor(name)}: {cut(error)}"
                ) from error
            made[name] = Made(plan, source, number, self._others, self._layered)
            recipe._check_steps(matching.steps + self._base.steps)
        if shapes and recipe.version > 1 and not recipe.optional:
            self._check_slips(matching)
        return made

    def _follow(self, name: str, dtype: DType, seen: tuple[str, ...]) -> tuple[Plan, str]:
        """A tensor's plan and the name of its key, also if it follows from another tensor."""
        rule = self._recipe.rules[self._globs[self._first[name]][1]]
        if rule.same_as is None and rule.norm_of is None:
            return self._own(name, dtype), name
        if name in seen:
            raise ValueError(f"it follows from itself: {show([*seen[seen.index(name) :], name])}")
        if len(seen) >= MAX_TIES:
            raise ValueError(f"it follows from more than {MAX_TIES} others, one after the other")
        shape = tuple(self._shapes[name])
        if rule.same_as is not None:
            other = self._other(name, "same_as", rule.same_as)
            if tuple(self._shapes[other]) != shape:
                raise ValueError(
                    f"same_as: {self._tensor(other)} has another shape than {show(shape)}"
                )
            return self._follow(other, dtype, (*seen, name))
        assert rule.norm_of is not None
        other = self._other(name, "norm_of", rule.norm_of)
        kind = self._dtype(other)
        plan, source = self._follow(other, kind, (*seen, name))
        return norms(plan, tuple(self._shapes[other]), kind, shape, dtype), source

    def _own(self, name: str, dtype: DType) -> Plan:
        """The plan of a tensor that has an initializer; alike tensors share it."""
        number = self._globs[self._first[name]][1]
        rule, shape = self._recipe.rules[number], tuple(self._shapes[name])
        other = name if rule.fans_of is None else self._other(name, "fans_of", rule.fans_of)
        base = None
        if rule.mup is not None:
            base = self._base.first(other)
            if base is None:
                raise ValueError(
                    "mup needs its shape in the base model; the table [base] has no glob that "
                    f"matches {show(other)}"
                )
        self._layered = self._uses_layers[number]
        place = self._places[name] if self._layered else Place(None, None)
        what = number, shape, tuple(self._shapes[other]), other == name, base, place, dtype.name
        if what not in self._kept:
            init = self._fitted(rule, place, base)
            if other != name:
                init = AtShape(init, tuple(self._shapes[other]))
            if rule.padding_idx is not None:
                init = Padded(init, rule.padding_idx)
            self._kept[what] = init.plan(shape, dtype)
        return self._kept[what]

    def _fitted(self, rule: Rule, place: Place, base: int | None) -> Initializer:
        """A rule's initializer at a place in the model."""
        recipe = self._recipe
        names = dict(recipe.constants)
        if place.layers is not None:
            names["layers"] = place.layers
        if place.layer is not None:
            names["layer"] = place.layer
        formulas = list(formulas_of(rule.init))
        for name in ("layers", "layer"):
            used = any(name in formula.names for formula in formulas)
            if (used or (name == "layers" and rule.depth_scaled)) and name not in names:
                word = f"formula with {name}" if used else "depth_scaled"
                raise ValueError(f"{word}, but {place.problem or 'its layer has no number'}")
        self._slow += sum(formula.slow for formula in formulas)
        if recipe.text and self._slow > MAX_SLOW:
            raise ValueError(
                f"formulas with more than {MAX_SLOW} powers, logarithms and the like in all "
                "layers and shapes"
            )
        init = bound(rule.init, names)
        if base is not None:
            assert rule.mup is not None
            init = MuP(init, rule.mup, recipe.base[base][1], rule.in_axis)
        if rule.depth_scaled:
            assert place.layers is not None
            init = DepthScaled(init, place.layers)
        made: Initializer = init
        return made

    def _other(self, name: str, key: str, pattern: str) -> str:
        """The name of another tensor."""
        if "*" in pattern:
            glob = self._globs[self._first[name]][0]
            self._compared += len(name) * max(map(len, glob.split("*")))
            if self._recipe.text and self._compared > MAX_COMPARED:
                raise ValueError(
                    f"{key}: to find out what wildcards stand for takes more than {MAX_COMPARED} "
                    "comparisons of characters"
                )
            pattern = filled(pattern, captured(glob, name))
        at = max(name.rfind("."), name.rfind("/")) + 1
        sibling = name[:at] + pattern
        for other in (sibling, pattern):
            if other in self._shapes and (other != name or key == "fans_of"):
                if other != name:
                    self._others += (other,)
                return other
        if name in (sibling, pattern):
            raise ValueError(f"{key}: it follows from itself")
        known = show(sibling) if sibling == pattern else f"{show(sibling)} or {show(pattern)}"
        raise ValueError(f"{key} needs the tensor {known}; there is none")

    def _dtype(self, name: str) -> DType:
        return self._dtypes.get(name, DTYPES["float32"])

    def _tensor(self, name: str) -> str:
        return f"tensor {show(name)} of shape {show(tuple(self._shapes[name]))}"

    def _check_slips(self, matching: Globs) -> None:
        """Refuse rules, their globs and entries of [base] that match nothing."""
        recipe = self._recipe
        hint = "mend it, or say optional = true"
        if not recipe.text:  # a mapping cannot say so
            hint = "mend it, or give a Recipe whose Rule has optional=True"
        used = {self._globs[first][1] for first in self._first.values()}
        for place, (glob, number) in enumerate(self._globs):
            rule = recipe.rules[number]
            where = f"recipe {show(recipe.name)}, rule {number + 1}"
            if rule.optional:
                continue
            if not matching.matched(place):
                raise RecipeError(f"{where}: the glob {show(glob)} matches no tensor; {hint}")
            if number not in used:
                raise RecipeError(
                    f"{where}: every tensor that {show(list(rule.match))} match has an earlier "
                    f"rule; {hint}"
                )
        for name in self._shapes if recipe.base else ():
            self._base.first(name)
            recipe._check_steps(matching.steps + self._base.steps)
        for place, (glob, _) in enumerate(recipe.base):
            if not self._base.matched(place):
                raise RecipeError(
                    f"recipe {show(recipe.name)}, table [base]: the glob {show(glob)} matches no "
                    f"tensor; {hint}"
                )


def _places(recipe: Recipe, names: Iterable[str]) -> dict[str, Place]:
    """Where in a model each tensor is."""
    if not recipe.layers and recipe.depths:
        return {name: Place(recipe.depths[0], None) for name in names}
    found: dict[str, set[str]] = {}  # the layers of a stack
    given: dict[str, int] = {}
    inside: dict[str, tuple[str, int | None]] = {}
    for name, (number, head) in _heads(recipe, names).items():
        stack, layer = _layer(head)
        found.setdefault(stack, set()).add(head)
        inside[name] = stack, layer
        if recipe.depths:
            given[stack] = recipe.depths[number]
    counts = {stack: len(layers) for stack, layers in found.items()}
    for stack, count in given.items():
        if counts[stack] > count:
            raise RecipeError(
                f"recipe {show(recipe.name)}, key 'layers': {count} layers were given; the model "
                f"has {counts[stack]} of {show(stack + '*')}"
            )
    counts |= given
    if recipe.version == 1:  # all layers were one stack
        counts = dict.fromkeys(counts, sum(counts.values()))
    if len(set(counts.values())) == 1:
        outside = Place(next(iter(counts.values())), None)
    elif not counts:
        outside = Place(None, None, f"no name fits layers = {show(recipe.layers)}")
    else:
        stacks = ", ".join(f"{count} of {stack}*" for stack, count in sorted(counts.items())[:8])
        outside = Place(None, None, f"it is in no stack of layers, and they differ: {cut(stacks)}")
    places = {}
    for name in names:
        places[name] = outside
        if name in inside:
            stack, layer = inside[name]
            places[name] = Place(counts[stack], layer)
    return places


def _heads(recipe: Recipe, names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """The layer that each tensor is in, if it is in one, and the number of its glob."""
    by_parts: dict[int, list[int]] = {}
    for number, glob in enumerate(recipe.layers):
        by_parts.setdefault(len(re.findall(r"[./]", glob)) + 1, []).append(number)
    automata = {
        parts: Globs(recipe.layers[number] for number in numbers)
        for parts, numbers in by_parts.items()
    }
    seen: dict[str, int | None] = {}  # the first glob that matches a prefix
    heads = {}
    for name in names:
        cuts = [match.start() for match in re.finditer(r"[./]", name)]
        best: tuple[int, str] | None = None
        for parts, numbers in by_parts.items():
            if len(cuts) < parts:
                continue
            head = name[: cuts[parts - 1]]
            if head not in seen:
                first = automata[parts].first(head)
                seen[head] = None if first is None else numbers[first]
                recipe._check_steps(automata[parts].steps)
            which = seen[head]
            if which is not None and (best is None or which < best[0]):
                best = which, head
        if best is not None:
            heads[name] = best
    return heads


def _layer(head: str) -> tuple[str, int | None]:
    """The stack of a layer, by the layer's name without the number at its end; and that number."""
    stack = head.rstrip("0123456789")
    digits = head[len(stack) :]
    if digits:
        return stack, int(digits) if len(digits) < 10 else None
    return head[: max(head.rfind("."), head.rfind("/")) + 1], None
