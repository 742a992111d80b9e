"""A function that cannot start."""

import no_such_module_anywhere  # pyright: ignore[reportMissingImports]

handler = no_such_module_anywhere.handler
