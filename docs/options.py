"""Write the tables of `configuration.md`: `python docs/options.py`; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from unface.server.config import GROUPS, PREFIX, ServerConfig, to_toml_value

PAGE = Path(__file__).parent / "configuration.md"
BEGIN, END = "<!-- options: written by docs/options.py -->\n", "<!-- end of options -->\n"


def tables() -> str:
    """Return a table for each group of options."""
    lines = []
    for name, field in ServerConfig.model_fields.items():
        if name in GROUPS:
            title = GROUPS[name][0].upper() + GROUPS[name][1:]
            lines += [
                f"\n### {title}\n",
                "| option | default | | environment |",
                "|---|---|---|---|",
            ]
        default = "" if field.default is None else f"`{to_toml_value(field.default)}`"
        lines.append(f"| `{name}` | {default} | {field.description} | `{PREFIX}{name.upper()}` |")
    return "\n".join(lines) + "\n\n"


def with_tables(page: str) -> str:
    """Return the page with what lies between its marks written anew."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tables() + END + rest.partition(END)[2]


def main() -> int:
    """Write the page, or compare it; returns the exit code."""
    page = PAGE.read_text()
    wanted = with_tables(page)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(wanted)
    elif page != wanted:
        print(f"{PAGE.name} is not current: python docs/options.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
