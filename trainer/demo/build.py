"""Builds the demo model from nothing: `python -m trainer.demo.build`.

Stages, each resumable from the work folder: `vae` (autoencoder), `decoder` (its decoder alone), `text` (text encoder),
`unet`, `captioner`. The results, float16 in the layouts of diffusers and transformers, go to the output folders, and
the gates are printed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.accelerators import DEVICES
from trainer.demo import CAPTIONER_DIR, MODEL_DIR, build_captioner, build_text, build_unet, build_vae, gates
from trainer.demo.tokenizer import build_tokenizer
from trainer.devices import gpu_held
from trainer.terminal import TerminalEvents

logger = logging.getLogger(__name__)

STAGES = ("vae", "decoder", "text", "unet", "captioner")
WORK_DIR = Path.home() / ".cache" / "lora-atelier" / "demo-build"
SEED = 0
VAE_STEPS, DECODER_STEPS, TEXT_STEPS, CAPTIONER_STEPS = 4500, 4000, 2000, 3000
PICTURES = 160_000
EVALUATE_EVERY_STEPS = 600
EVALUATION_PROMPTS = 45


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line. Returns 0, or 1 where a gate is missed."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    if not options.gates:
        with gpu_held(torch.device(options.device, 0), "building of the demo model", TerminalEvents(sys.stderr)):
            deadline = time.monotonic() + 60 * options.minutes
            finished = all(_run(stage, options, deadline) for stage in (options.stage or STAGES))
        if not finished:
            logger.info("time is up; run the same command again to continue")
            return 0
        if options.stage:
            return 0
        export(options.work_dir, options.out)
        build_captioner.export(options.work_dir / "captioner", options.captioner_out)
    measured = [
        *gates.measure(options.out, options.seed),
        *gates.measure_captioner(options.captioner_out, options.seed),
    ]
    logger.info("gates of %s and %s\n%s", options.out, options.captioner_out, gates.table(measured))
    return 0 if all(gate.passed for gate in measured) else 1


def export(work: Path, out: Path) -> None:
    """Writes the newest weights in `work` to `out`: float16, diffusers layout."""
    _pipeline(work).to(torch.float16).save_pretrained(out, safe_serialization=True)
    build_tokenizer(out / "tokenizer")
    for file in out.rglob("config.json"):  # diffusers notes the folder that a part was loaded from
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings.pop("_name_or_path", None)
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for file in out.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes files that only their owner can read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.demo.build", description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=WORK_DIR, help="training state; kept to resume from")
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="where the finished model goes")
    parser.add_argument("--captioner-out", type=Path, default=CAPTIONER_DIR, help="where the finished captioner goes")
    parser.add_argument("--stage", action="append", choices=STAGES, help="only this stage; may be repeated")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop the UNet after so long, to be resumed"
    )
    parser.add_argument("--pictures", type=int, default=PICTURES, help="pictures the UNet sees in all")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--device", choices=DEVICES[1:], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="one for each core that nothing else uses")
    parser.add_argument("--gates", action="store_true", help="build nothing, print the gates of the model in --out")
    return parser


def _run(stage: str, options: argparse.Namespace, deadline: float) -> bool:
    """Runs one stage to its end, or to the deadline. Returns whether it ended."""
    work, seed = options.work_dir, options.seed
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)  # the layers' first weights come from the global generator
    if stage == "vae":
        vae = build_vae.new_vae().to(options.device)
        build_vae.train(vae, "vae", _vae_pictures(work, seed), work / "vae.pt", seed, VAE_STEPS)
        vae.save_pretrained(work / "vae_joint")
    elif stage == "decoder":
        vae = AutoencoderKL.from_pretrained(work / "vae_joint").to(options.device)
        build_vae.train(vae, "decoder", _vae_pictures(work, seed), work / "decoder.pt", seed, DECODER_STEPS)
        vae.save_pretrained(work / "vae")
    elif stage == "text":
        tokenizer = build_tokenizer(work / "tokenizer")
        encoder = build_text.new_text_encoder(tokenizer).to(options.device)
        build_text.train(encoder, tokenizer, work / "text.pt", seed, TEXT_STEPS)
        encoder.save_pretrained(work / "text_encoder")
    elif stage == "captioner":
        processor = build_captioner.new_processor()
        captioner = build_captioner.new_captioner(processor.tokenizer).to(options.device)
        build_captioner.train(captioner, processor, work / "captioner.pt", seed, CAPTIONER_STEPS)
        captioner.save_pretrained(work / "captioner")
    else:
        return _run_unet(options, deadline)
    return True


def _run_unet(options: argparse.Namespace, deadline: float) -> bool:
    work, seed = options.work_dir, options.seed
    unet = build_unet.new_unet()
    pipeline = _pipeline(work, unet).to(options.device)

    def evaluate(step: int) -> None:
        unet.eval()
        scores, pictures = gates.prompt_scores(pipeline, EVALUATION_PROMPTS, seed)
        unet.train()
        seen = step * build_unet.BATCH
        logger.info("scores at %d pictures: %s", seen, {name: round(share, 3) for name, share in scores.items()})
        gates.grid(pictures, columns=9).save(work / f"pictures_{seen:07d}.png")
        unet.save_pretrained(work / "unet")

    steps = options.pictures // build_unet.BATCH
    parts = (unet, pipeline.text_encoder, pipeline.tokenizer, build_unet.Pool(pipeline.vae, work, seed))
    finished = build_unet.train(*parts, work / "unet.pt", seed, steps, evaluate, EVALUATE_EVERY_STEPS, deadline)
    if finished:
        evaluate(steps)
    return finished


def _vae_pictures(work: Path, seed: int) -> build_vae.np.ndarray:
    return build_vae.draw_pictures(work / "vae_pictures.npy", seed)


def _pipeline(work: Path, unet: UNet2DConditionModel | None = None) -> StableDiffusionPipeline:
    """The newest parts in `work` as a pipeline."""
    vae = work / "vae" if (work / "vae").exists() else work / "vae_joint"
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(vae),
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(work / "unet") if unet is None else unet,
        scheduler=build_unet.new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


if __name__ == "__main__":
    sys.exit(main())
