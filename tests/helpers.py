"""What several tests share."""

from typing import Any

from numinit.engines.layout import View, c_steps
from numinit.engines.spec import Spec
from numinit.stream.dtypes import as_dtype


def law_of(initializer: Any, shape: Any, dtype: Any = "float32") -> Any:
    """The distribution that an initializer gives a sampled weight, one without zeros."""
    plan = initializer.plan(tuple(shape), as_dtype(dtype))
    assert plan.zeros is None
    return plan.distribution


def spec_of(initializer: Any, shape: Any, dtype: Any = "float32") -> Spec:
    """What a kernel is made for and reads, of a sampled weight."""
    plan = initializer.plan(tuple(shape), as_dtype(dtype))
    return Spec(*plan.distribution.transform(as_dtype(dtype)), plan.zeros)


def view_of(array: Any, steps: Any = None, by_rows: bool = False) -> View:
    """An array's memory as a view of a weight, of one of the array's shape if `steps` is left out."""
    return View(
        array.shape, array.strides, c_steps(array.shape) if steps is None else steps, by_rows
    )


def laws_of(recipe: Any, shapes: Any) -> dict[str, Any]:
    """The distributions that a recipe gives sampled weights, none of which has zeros."""
    plans = recipe.plan(shapes)
    assert all(plan.zeros is None for plan in plans.values())
    return {name: plan.distribution for name, plan in plans.items()}
