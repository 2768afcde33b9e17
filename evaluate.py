"""Measure trained models: disentanglement scores, losses, total correlation.

python evaluate.py --model_path runs/NAME/ckpt.pt
python evaluate.py --model_path runs/SWEEP --csv sweep.csv --markdown
"""

import sys
from collections.abc import Sequence

from factorvae.command_line import parse
from factorvae.config import EvaluateConfig
from factorvae.errors import run_script


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(EvaluateConfig, __doc__, argv, {"metrics": metric_names})
    # torch takes seconds to import, for which a wrong flag does not wait
    from factorvae.device import choose_device, use_threads
    from factorvae.evaluation.evaluate import evaluate
    from factorvae.evaluation.models import find_checkpoints, load_models
    from factorvae.evaluation.outputs import Outputs

    device = choose_device(config.device)
    models, unread = load_models(find_checkpoints(config.model_path), config)
    outputs = Outputs(models, config, unread)
    for model in evaluate(models, config, device, use_threads(config.threads)):
        outputs.write(model)
    outputs.print_table()
    outputs.write_csv()
    outputs.check()


def metric_names() -> list[str]:
    """For --help, which alone waits for the import."""
    from factorvae.evaluation.scores import METRICS

    return [*METRICS]


if __name__ == "__main__":
    sys.exit(run_script(main))
