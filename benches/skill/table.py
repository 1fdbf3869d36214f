"""What the runs say, as Markdown: mean and spread over seeds, and our ratio to the best peer by lead."""

import json
import sys
from pathlib import Path
from statistics import mean, stdev

OURS = "physicnet"
NAMES = {
    "physicnet": "PhysicNet", "unet": "U-Net", "simvp": "SimVP", "convlstm": "ConvLSTM", "fno": "FNO",
    "lucas_kanade": "pysteps LK", "advection": "advection", "persistence": "persistence",
}
# Not trained beside us: our own expert stands for itself.
EXPERTS = ["advection", "persistence"]
# Of a roll-out, and its last lead.
SHOWN = [1, 2, 5, 10, 20, 30, 40, 50, 70]


def spread(values):
    told = f"{mean(values):.3g}"
    return told + (f" ± {stdev(values):.1g}" if len(values) > 1 and stdev(values) > 0 else "")


def line(cells):
    return "| " + " | ".join(cells) + " |"


def part(runs, variable, score, people, lower, shown=None):
    """One score: rows are leads and their mean; the last column is ours over the best peer's."""
    at = lambda run, name, lead: run["scores"][variable][name][lead][score]
    leads = range(len(runs[0]["scores"][variable][OURS]))
    rowed = leads if shown is None else [lead for lead in leads if lead + 1 in shown or lead == leads[-1]]
    rows = [line(["lead", *(NAMES[name] for name in people), "to the best peer"])]
    rows.append(line(["---"] * (len(people) + 2)))
    peers = [name for name in people if name not in (OURS, "advection")]
    for lead in [*rowed, None]:
        of = lambda run, name: mean(at(run, name, k) for k in leads) if lead is None else at(run, name, lead)
        values = {name: [of(run, name) for run in runs] for name in people}
        best = (min if lower else max)(mean(values[name]) for name in peers)
        ratio = f"{mean(values[OURS]) / best:.3f}" if best else "-"
        rows.append(line(["mean" if lead is None else str(lead + 1), *map(spread, values.values()), ratio]))
    return "\n".join(rows)


def budget(told, members):
    rows = [line(["", "parameters", "steps", "seconds", "processor seconds"]), line(["---"] * 5)]
    for name in members:
        of = lambda key: [run["members"][name][key] for run in told["runs"] if key in run["members"][name]]
        cells = [f"{mean(of(key)):.0f}" if of(key) else "-" for key in ("parameters", "steps", "wall", "cpu")]
        rows.append(line([NAMES[name], *cells]))
    return "\n".join(rows)


def table(told):
    seeds = len(told["runs"])
    members = list(told["runs"][0]["members"])
    people = [*members, *EXPERTS]
    clock = " of processor time" if told["clock"] == "cpu" else ""
    budget_said = f"Trained for {told['minutes']:g} minutes{clock} each, on {told['threads']} of the cores of an"
    text = [f"# {told['title']}", f"{budget_said} {told['machine']}; {seeds} seeds."]
    text.append(budget(told, members))
    largest = max(run["differs"] for run in told["runs"])
    text.append(f"A second scorer (numpy, pysteps) differs by {largest:.0e} at most.")
    for variable, products in told["runs"][0]["scores"].items():
        # Relative to what came, unless that is often nothing.
        rain = any(key.startswith("csi_") for key in products[OURS][0])
        scores = ["mse"] if rain else ["mse", "rel_l2"]
        for score in scores + [key for key in products[OURS][0] if key.startswith(("csi_", "fss_"))]:
            text.append(f"## {variable}: {score}")
            text.append(part(told["runs"], variable, score, people, score in ("mse", "rel_l2")))
    rolled = [run["rollout"] for run in told["runs"] if "rollout" in run]
    for variable in rolled[0]["scores"] if rolled else []:
        text.append(f"## {variable}: rel_l2, rolled out")
        text.append(part(rolled, variable, "rel_l2", people, True, SHOWN))
    return "\n\n".join(text) + "\n"


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())))
