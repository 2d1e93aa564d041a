"""`hcpr_tune init`: a starter space for a folder of class folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from hcpr_tune.commands.console import COMPLETED
from hcpr_tune.errors import InputError
from hcpr_tune.paths import check_writable, exists, is_dir
from hcpr_tune.typed import command, option


def run(options: argparse.Namespace) -> int:
    from hcpr_tune.files import write_whole
    from hcpr_tune.starter import starter_space

    folder = Path(options.folder)
    if not is_dir(folder, f"FOLDER {folder}"):
        raise InputError(f"FOLDER {folder}: there is no folder {folder}; give one with a subfolder of images per class")
    out = Path(options.out or Path("search_spaces") / f"{folder.resolve().name}.toml")
    if exists(out, f"--out {out}"):
        raise InputError(f"--out {out} exists; choose another file")
    check_writable(out, f"--out {out}", "choose another file")
    text = starter_space(folder)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error}; choose another file") from None
    print(f"wrote {out}; look at it, then: {command('tune', option('--space', out))}")
    return COMPLETED
