"""`drmguard zoo`: the commands of the attack zoo, from plain words to paths."""

from pathlib import Path


def train(plan: str, out: str, device: str, jobs: int, genki: str | None) -> int:
    """`drmguard zoo train`."""
    from tools.zoo.train import train_zoo

    crops = None if genki is None else Path(genki)
    train_zoo(Path(plan), Path(out), device=device, jobs=jobs, genki=crops)
    return 0


def screen(
    zoo: str,
    out: str,
    method: str,
    device: str,
    only: str | None,
    limit: int | None,
    seed: int,
    jobs: int,
    images: int,
    data: str | None,
    change: str,
) -> int:
    """`drmguard zoo screen`."""
    from tools.zoo.screen import screen_zoo

    screen_zoo(
        Path(zoo),
        method=method,
        out=Path(out),
        device=device,
        limit=limit,
        only=only,
        seed=seed,
        jobs=jobs,
        images=images,
        data=None if data is None else Path(data),
        change=change,
    )
    return 0


def mitigate(
    zoo: str,
    out: str,
    device: str,
    only: str | None,
    limit: int | None,
    seed: int,
    jobs: int,
    change: str,
) -> int:
    """`drmguard zoo mitigate`."""
    from tools.zoo.mitigate import mitigate_zoo

    mitigate_zoo(
        Path(zoo),
        out=Path(out),
        device=device,
        limit=limit,
        only=only,
        seed=seed,
        jobs=jobs,
        change=change,
    )
    return 0


def table(lines: str, out: str, overwrite: bool) -> int:
    """`drmguard zoo table`."""
    from tools.zoo.table import table as write_table

    write_table([Path(path) for path in lines.split(",")], Path(out), overwrite=overwrite)
    return 0
