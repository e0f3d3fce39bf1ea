"""Commands that answer from results: `compare`, `recommend`."""

from pathlib import Path

import click

from benchmark.commands.options import FiniteRange, console_of_width, quiet, write_output
from common.limits import printable


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--results", type=click.Path(path_type=Path), default="results", show_default=True,
              help="Folder of the results inside a commit.")  # fmt: skip
@click.option("--all", "every_metric", is_flag=True,
              help="Show every metric of every network, not only the ranking one.")  # fmt: skip
@click.option("--fail-if-worse", type=FiniteRange(0), metavar="PERCENT",
              help="Exit with 1 if the ranking metric of any network is worse in B by more than "
              "PERCENT of its value in A, if its run failed in B, or if a result of B cannot be "
              "read. The mean over seeds decides, whatever its interval; runs that B lacks do not "
              "count.")  # fmt: skip
@click.option("--json", "json_file", metavar="FILE", help="Write all as JSON; -: print it.")
def compare(
    a: str, b: str, results: Path, every_metric: bool, fail_if_worse: float | None,
    json_file: str | None,
) -> None:  # fmt: skip
    """Differences between two runs, two results folders or two git commits.

    A and B each name a run's folder, a results folder, or a commit (a branch, HEAD~1, …) with
    results in it; a path that exists wins. Two runs are compared whatever differs between them, if
    they were scored on the same images under the same protocol. Otherwise runs of the same task,
    data set, protocol, backbone, decoder and seed are paired. Both were scored with the same
    weights of the images, so that the interval is that of the difference.

    \b
    python cli.py compare runs/RUN_A runs/RUN_B
    python cli.py compare HEAD~1 HEAD --fail-if-worse 0.5
    """
    import contextlib

    quiet()
    from benchmark.leaderboard.compare import compare as compare_sides
    from benchmark.leaderboard.sides import open_side
    from benchmark.report.comparison import comparison_json, comparison_lines, comparison_table

    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(open_side(text, results)) for text in (a, b)]
        for side in sides:
            for problem in side.problems:
                click.echo(f"warning: {printable(problem)}", err=True)
        report = compare_sides(*sides)
    if json_file == "-":
        click.echo(comparison_json(report), nl=False)
    else:
        console = console_of_width(180)
        console.print(comparison_table(report, every_metric or len(report.rows) == 1))
        for line in comparison_lines(report):
            console.print(printable(line), markup=False, highlight=False)
        if json_file is not None:
            write_output(Path(json_file), comparison_json(report), "--json")
    if fail_if_worse is not None:
        worse = report.worse_than(fail_if_worse)
        for text in worse:
            click.echo(f"worse by more than {fail_if_worse:g} %: {printable(text)}", err=True)
        unreadable = sides[1].problems
        if unreadable:
            click.echo(f"{len(unreadable)} results of {b} cannot be read or compared", err=True)
        if worse or unreadable:
            raise SystemExit(1)


@click.command()
@click.option("--task", required=True, metavar="NAME", help="What to predict.")
@click.option("--dataset", metavar="NAME", help="Needed where the results have several.")
@click.option("--device", metavar="TEXT",
              help="A part of its name; needed where the results have several.")  # fmt: skip
@click.option("--latency", metavar="TIME", help="At most this for one image: 30ms, 0.03s.")
@click.option("--params", metavar="COUNT", help="At most this many parameters: 5M.")
@click.option("--macs", metavar="COUNT", help="At most this many multiply-accumulates: 2G.")
@click.option("--memory", metavar="SIZE", help="At most this peak memory of a forward: 200MB.")
@click.option("--speed", type=click.Path(path_type=Path), metavar="FILE.json",
              help="Latencies of the target machine, as `speed --json FILE.json` wrote them "
              "there, in place of the results'.")  # fmt: skip
@click.option("--disturbed", is_flag=True,
              help="Take latencies timed while other work ran like any other.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path), default="runs", show_default=True,
              help="Folder of the results.")  # fmt: skip
def recommend(
    task: str, dataset: str | None, device: str | None, latency: str | None, params: str | None,
    macs: str | None, memory: str | None, speed: Path | None, disturbed: bool, results: Path,
) -> None:  # fmt: skip
    """Name the best decoder and backbone within a budget, from the results.

    Budgets combine; the cost is the first given of latency, parameters, MACs and memory. Also
    shown: the best network that costs less, and the cost of the next better score. Exits with 1
    if nothing is within the budget.

    \b
    python cli.py recommend --task depth --latency 30ms
    python cli.py recommend --task segmentation --dataset camvid --params 3M --macs 1G
    """
    from benchmark.commands.report import read_results

    quiet()
    from benchmark.leaderboard.boards import boards
    from benchmark.leaderboard.recommend import choose_board, parse_budget, with_latencies
    from benchmark.leaderboard.recommend import recommend as best_within
    from benchmark.leaderboard.runtimes import with_runtimes
    from benchmark.report.recommendation import recommendation_table, sentences
    from common.errors import UserError

    limits = {"latency": latency, "params": params, "macs": macs, "memory": memory}
    budgets = {name: parse_budget(name, text) for name, text in limits.items() if text is not None}
    board = choose_board(boards(read_results(results), disturbed), task, dataset, device)
    board = with_runtimes(board) if speed is None else with_latencies(board, speed, disturbed)
    choice = best_within(board, budgets)
    lines = list(sentences(choice, budgets))
    if choice.best is None:
        raise UserError(" ".join(lines))
    for line in lines:
        click.echo(printable(line))
    if speed is not None:
        click.echo(f"Latencies: {speed}.")
    console_of_width(180).print(recommendation_table(choice))
