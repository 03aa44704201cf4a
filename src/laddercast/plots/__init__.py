"""The figures. Each takes `ax` (an array of them where it has several panels) and returns it."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "allocation": ["plot_allocation"],
        "calibration": ["plot_calibration"],
        "grids": ["plot_iso_accuracy", "plot_what_if"],
        "intervals": ["plot_forecast"],
        "noise": ["plot_noise"],
        "recipes": ["plot_recipes"],
        "rungs": ["plot_plan"],
        "stages": ["plot_stage1", "plot_stage2"],
    },
)
