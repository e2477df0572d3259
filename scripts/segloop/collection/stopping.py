"""When a run ends. Every start of Snakemake imports this module, so it imports little."""

from typing import Any

from segloop.config import LoopConfig


def stop_reason(summaries: list[dict[str, Any]], loop: LoopConfig) -> str | None:
    """Return why the run ends after these iterations, or None if it goes on.

    Parameters
    ----------
    summaries
        Of the iterations 0..i, in order.

    Returns
    -------
    "no_new_masks" (the last iteration collected none), "no_better_ap" (its AP is not above that of the iteration
    before) or "cost" (people and machines cost more than its masks are worth, and a mask of the next iteration is
    taken to cost as much) where the configuration names these rules; "iterations" when all are done. Unknown figures
    stop nothing.
    """
    last = summaries[-1]
    rules = [] if loop.stop == "never" else loop.stop
    if last["iteration"] > 0:
        if "no_new_masks" in rules and last["collected"] == 0:
            return "no_new_masks"
        aps = last["ap"], summaries[-2]["ap"]
        if "no_better_ap" in rules and None not in aps and aps[0] <= aps[1]:
            return "no_better_ap"
        if "cost" in rules and last["value"] is not None and last["dollars"] + last["machine_dollars"] > last["value"]:
            return "cost"
    return "iterations" if last["iteration"] >= loop.iterations else None
