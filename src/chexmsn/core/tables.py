"""Tables as they are read: whole, or with one line that says what is wrong."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from chexmsn.core.errors import UserError


def read_table(path: Path, remedy: str, **options: Any) -> pd.DataFrame:
    """A Parquet file; `options` are those of `pandas.read_parquet`.

    Raises UserError, with the remedy, for a file that is missing or damaged.
    """
    try:
        return pd.read_parquet(path, **options)
    except FileNotFoundError:
        raise UserError(f"{path.parent} has no {path.name}: {remedy}") from None
    except (pa.ArrowException, OSError) as error:
        told = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{path} is damaged ({told}): {remedy}") from None
