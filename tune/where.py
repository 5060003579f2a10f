"""`pose tune folder`: where a search stands, for batch scripts. No torch and no Ray here."""

from tune.settings import TuneSettings


def print_folder(settings: TuneSettings) -> None:
    """Print the folder of a search, given the words that it is started or gone on with."""
    print((settings.runs_dir / (settings.resume or settings.name)).resolve())
