"""Pictures of a trained model: traversals, reconstructions, samples, latents against factors.

python visualize.py --output_dir results/
python visualize.py --model_path runs/NAME/ckpt.pt --output_dir results/
"""

import sys
from collections.abc import Sequence

from factorvae.command_line import parse
from factorvae.config import VisualizeConfig
from factorvae.errors import run_script


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(VisualizeConfig, __doc__, argv)
    # torch takes seconds to import, for which --help and a wrong flag do not wait
    from factorvae.evaluation.scores import SCORES
    from factorvae.pages.drawing import visualize

    visualize(config, SCORES)


if __name__ == "__main__":
    sys.exit(run_script(main))
