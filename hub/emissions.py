"""The CO2 emissions of a training, as codecarbon measured them.

    mkdir -p runs/mine
    CODECARBON_OUTPUT_DIR=runs/mine codecarbon monitor -- ashnets train own-pairs --output runs/mine

codecarbon (``pip install codecarbon``) writes ``emissions.csv``: kilograms of CO2 equivalents, from the energy of the
process and the power grid of a country. Its rows are cumulative: each replaces the previous row of the same
``run_id``. A resumed training has several ``run_id``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ashnets.errors import DataError
from ashnets.files import read_csv

FILE = "emissions.csv"


@dataclass(frozen=True)
class Emissions:
    """The sum over all runs of a training.

    Attributes:
        grams: of CO2 equivalents.
        kilowatt_hours: None if the file does not give them.
        places: countries of the power grid.
        hardware: processors and GPUs.
        version: of codecarbon.
    """

    grams: float
    kilowatt_hours: float | None
    places: tuple[str, ...]
    hardware: tuple[str, ...]
    version: str


def read_emissions(*folders: Path) -> Emissions | None:
    """Read the first ``emissions.csv`` in ``folders``; None if there is none.

    Raises:
        DataError: codecarbon did not write the file.
    """
    file = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    if file is None:
        return None
    rows = read_csv(file)
    last = {row.get("run_id") or str(number): row for number, row in enumerate(rows)}
    try:
        kilograms = sum(float(row["emissions"]) for row in last.values())
        energy = [float(row["energy_consumed"]) for row in last.values() if row.get("energy_consumed")]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} was not written by codecarbon ({type(error).__name__}: {error}); remove it") from None
    if not rows or not 0 <= kilograms < float("inf"):
        raise DataError(f"{file} contains no emissions; remove it")

    def named(*keys: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row[key] for row in last.values() for key in keys if row.get(key)))

    return Emissions(
        grams=1000 * kilograms,
        kilowatt_hours=sum(energy) if len(energy) == len(last) else None,
        places=named("country_name"),
        hardware=named("cpu_model", "gpu_model"),
        version=", ".join(named("codecarbon_version")),
    )
