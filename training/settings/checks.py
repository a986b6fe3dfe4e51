"""Check one setting."""


def require(holds: bool, name: str, value: object, instead: str) -> None:
    """Refuse a setting unless the condition `holds`.

    Raises:
        ValueError: ``<name> is <value>: use <instead>.``
    """
    if not holds:
        raise ValueError(f"{name} is {value!r}: use {instead}.")
