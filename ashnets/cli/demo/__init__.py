"""``ashnets demo``: the bundled model at work on the bundled gallery, from retrieval to energy. No network."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

import ashnets
from ashnets.cli.demo import figures
from ashnets.cli.demo.gallery import DIRECTIONS, Ranking, bundled_gallery, rank_gallery
from ashnets.cli.demo.terminal import Terminal
from ashnets.environment import environment
from ashnets.errors import MissingExtraError
from ashnets.evaluation.embedding import embed_texts
from ashnets.export import (
    Counts,
    Estimate,
    SpikingGraph,
    compare_with_reference,
    count,
    dense_macs,
    estimate,
    from_model,
    load_profile,
    profile_names,
    run_onnx,
    write_onnx_step,
)
from ashnets.export.onnx.reading import read_spikes, write_onnx_reading
from ashnets.export.placement.chips import DEFAULT, load_chip
from ashnets.export.placement.placing import place
from ashnets.figures import THEMES, style
from ashnets.files import JsonObject, require_writable, write_atomically, write_json
from ashnets.hub.resolving import weights_sha256
from ashnets.metrics.retrieval import KS
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.processor import AshNetsProcessor

MODEL = "ashnets-tiny"
SUMMARY = "summary.json"
SEED = 0  # for the selection of images to show
RERANKED = 16
COUNTED = 32  # images whose spikes are compared and counted
SHOWN = 6  # images in the figures of the spiking branch


def run(output: Path) -> None:
    """Run the whole demo and write its files to ``output`` as they are ready; other files there stay.

    Raises:
        OutputError: ``output`` cannot be written.
        UnknownModelError, WeightsError: the bundled checkpoint is missing or damaged.
        DataError: the bundled gallery is missing or damaged.
    """
    require_writable(output / SUMMARY)
    processor = ashnets.AshNetsProcessor.from_pretrained(MODEL)
    demonstrate(ashnets.from_pretrained(MODEL), processor, output, weights_sha256(MODEL))


@torch.inference_mode()
def demonstrate(
    model: AshNetsForPreTraining, processor: AshNetsProcessor, output: Path, weights: str | None = None
) -> JsonObject:
    """The demo on a loaded model and its processor; returns what ``summary.json`` receives.

    Args:
        weights: their digest, which the image for README carries.
    """
    start = time.perf_counter()
    terminal = Terminal(steps=6)
    files: dict[str, Path] = {}

    def save(name: str, data: bytes, what: str) -> None:
        files[name] = write_atomically(output / f"{name}.png", data)
        terminal.file(files[name], what)

    gallery, config = bundled_gallery(), model.config
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    terminal.step(f"{MODEL}, {millions:.1f} million parameters, and a gallery of {len(gallery)} drawings")
    terminal.say(
        f"{config.num_visual_tokens} visual tokens of {config.stride} px, T = {config.time_steps} steps, "
        f"{config.num_concepts} concepts. None of these drawings is in the training data: their vendor is held out. "
        f"{len(gallery.of('new'))} of them show new concepts, which no drawing of the training data shows."
    )

    terminal.step(f"Retrieval, {len(gallery)} sentences and {len(gallery)} images, both ways")
    ranking = rank_gallery(model, processor, gallery, RERANKED, terminal)
    recalls = ranking.recalls()
    _show_recalls(terminal, recalls)
    queries = ranking.choose("seen", 5, SEED) + ranking.choose("new", 3, SEED)
    with style():
        sheet = figures.contact_sheet(ranking, queries)
    save("contact_sheet", sheet, "randomly chosen queries with their results")

    terminal.step("Spikes of the spiking branch")
    graph = from_model(model, MODEL)
    shown = queries[:SHOWN]
    fired, _ = graph.run(ranking.spikes[:, shown])
    _show_rates(terminal, ranking)
    with style():
        raster, ratios = figures.spike_raster(ranking, fired, shown), figures.summary_ratio_map(ranking, shown)
    save("spikes", raster, "spike raster of every layer, and firing rates")
    save("summary_ratio", ratios, "how much of the spiking feature each token gets")
    first = {name: one[:, :1] for name, one in fired.items()}
    for name, theme in THEMES.items():
        with style(theme):
            drawn = figures.at_work(ranking, first, [*queries[:2], queries[-1]], {"weights": weights or "none"})
        save(f"at_work_{name}", drawn, f"all of it in one image, on a {name} background")

    counted = sorted(torch.randperm(len(gallery), generator=torch.Generator().manual_seed(SEED))[:COUNTED].tolist())
    spikes = ranking.spikes[:, counted]
    terminal.step("The spiking encoder as an ONNX step graph, in onnxruntime")
    onnx = _export(terminal, graph, model, spikes, output, files)
    _read_spikes(terminal, model, processor, graph, ranking, shown[0], output)

    terminal.step(f"Operations per image (mean over {len(counted)} images)")
    placement = place(graph, load_chip(DEFAULT))
    counts = count(graph, spikes, placement=placement)
    macs = dense_macs(model, ranking.pixels[:1])
    _show_counts(terminal, counts, macs)
    traffic = counts.traffic
    assert traffic is not None  # counted with a placement
    terminal.say(
        f"On {placement.chip.title}: {placement.cores} of {placement.chip.cores} cores; "
        f"{traffic.messages / counts.images:,.0f} messages and {traffic.hops / counts.images:,.0f} hops an image."
    )

    terminal.step("Estimated energy")
    estimates = [estimate(counts, load_profile(name), macs, f"{len(counted)} images") for name in profile_names()]
    _show_estimates(terminal, estimates)

    files["summary"] = output / SUMMARY
    seconds = round(time.perf_counter() - start, 1)
    summary: JsonObject = {
        "model": MODEL,
        "seeds": {"choice": SEED, "sampling": config.sampling_seed},
        "environment": environment(),
        "gallery": {"images": len(gallery), "seen": len(ranking.part("seen")), "new": len(ranking.part("new"))},
        "retrieval": recalls,
        "firing_rates": {name: float(rate.mean()) for name, rate in ranking.rates.items()},
        "summary_ratio": {"mean": float(ranking.summary_ratio.mean()), "std": float(ranking.summary_ratio.std())},
        "onnx": onnx,
        "counts": counts.to_dict(),
        "dense_macs": macs,
        "energy": [one.to_dict() for one in estimates],
        "files": {name: path.name for name, path in files.items()},
        "seconds": seconds,
    }
    write_json(files["summary"], summary)
    terminal.file(files["summary"], "all numbers, with seeds, versions and hardware")
    _show_way_on(terminal, output, seconds)
    return summary


def _show_recalls(terminal: Terminal, recalls: list[JsonObject]) -> None:
    rows = [
        [DIRECTIONS[r["direction"]], r["ranking"], r["concepts"], str(r["n"]), *(f"{r[f'R@{k}']:.3f}" for k in KS)]
        for r in recalls
    ]
    chance = {r["concepts"]: r for r in recalls}
    rows += [
        ["both", "chance", part, str(r["n"]), *(f"{r['chance'][f'R@{k}']:.3f}" for k in KS)]
        for part, r in chance.items()
    ]
    terminal.table(["", "ranking", "concepts", "n", *(f"R@{k}" for k in KS)], rows, words=3)
    terminal.say(
        "ITC compares the embeddings of image and sentence. ITM re-ranks the best candidates by reading image and "
        "sentence together; its score is used alone or added to that of ITC. Every query is compared with the whole "
        "gallery. A blind model is at chance, since a sentence does not say which image of the gallery it describes."
    )


def _show_rates(terminal: Terminal, ranking: Ranking) -> None:
    rates = ", ".join(f"{name} {100 * float(rate.mean()):.1f}%" for name, rate in ranking.rates.items())
    terminal.say(f"Firing rates (spikes per neuron and time step): {rates}.")
    ratio = ranking.summary_ratio
    terminal.say(f"Summary ratio: mean {ratio.mean():.3f}, {ratio.min():.3f} to {ratio.max():.3f} over all tokens.")


def _export(
    terminal: Terminal,
    graph: SpikingGraph,
    model: AshNetsForPreTraining,
    spikes: torch.Tensor,
    output: Path,
    files: dict[str, Path],
) -> JsonObject | None:
    """Write, run and compare the step graph; None where the extra is not installed."""
    path = output / "spiking_encoder.onnx"
    try:
        write_onnx_step(graph, path, layer_spikes=True)
        found = compare_with_reference(path, graph, model.ashnets.vision.abstract_encoder, spikes)
    except MissingExtraError as error:
        terminal.say(f"Skipped: {error}")
        return None
    files["onnx"] = path
    terminal.file(path, f"{path.stat().st_size / 1024:.0f} KiB, one time step per call, membrane states in and out")
    terminal.table(
        ["layer", "compared", "different from the folded graph in torch", "different from the model, tdBN unfolded"],
        [
            [layer.layer, f"{layer.compared:,}", f"{layer.differ_from_graph:,}", f"{layer.differ_from_model:,}"]
            for layer in found.layers
        ],
    )
    same = "Every spike matches" if found.differ_from_graph == 0 else f"{found.differ_from_graph:,} spikes differ from"
    terminal.say(
        f"{same} the graph that was exported, of {found.compared:,} over {found.images} images. Against the model "
        f"with tdBN unfolded {found.differ_from_model:,} differ ({found.differ_from_model / found.compared:.4%}): "
        "folding rounds the weights once more, so neurons very close to their threshold can fire differently."
    )
    return {
        "images": found.images,
        "steps": found.steps,
        "compared": found.compared,
        "differ_from_graph": found.differ_from_graph,
        "differ_from_model": found.differ_from_model,
        "layers": [vars(layer) for layer in found.layers],
    }


def _read_spikes(
    terminal: Terminal,
    model: AshNetsForPreTraining,
    processor: AshNetsProcessor,
    graph: SpikingGraph,
    ranking: Ranking,
    image: int,
    output: Path,
) -> None:
    """The sentences that the exported spikes of one image find, without its concrete features."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            reading = write_onnx_reading(model, Path(folder) / "reading.onnx")
            counts = run_onnx(output / "spiking_encoder.onnx", ranking.spikes[:, image : image + 1])[0]
            embeds = read_spikes(reading, counts[graph.layers[-1].name].sum(0))  # (1, D)
    except MissingExtraError:
        return
    texts = embed_texts(model, processor.tokenizer, ranking.sentences, for_spikes=True)
    best = (embeds @ texts.T)[0].topk(3).indices.tolist()
    found = "; ".join(ranking.sentences[i] for i in best)
    terminal.say(f"Spikes to text, from the exported files alone, for “{ranking.sentences[image]}”: {found}.")


def _show_counts(terminal: Terminal, counts: Counts, macs: dict[str, int]) -> None:
    n = counts.images
    rows = [
        [
            layer.name,
            f"{layer.neurons:,}",
            f"{layer.spikes / n:,.0f}",
            f"{100 * layer.rate:.1f} %",
            f"{layer.synaptic_operations / n:,.0f}",
            f"{layer.membrane_updates / n:,.0f}",
            f"{layer.dense_macs:,}",
        ]
        for layer in counts.layers
    ]
    total = [counts.spikes / n, counts.synaptic_operations / n, counts.membrane_updates / n, counts.dense_macs]
    rows.append(
        [
            "all",
            f"{sum(layer.neurons for layer in counts.layers):,}",
            f"{total[0]:,.0f}",
            "",
            *(f"{value:,.0f}" for value in total[1:]),
        ]
    )
    terminal.table(
        [
            "layer",
            "neurons",
            "spikes",
            "firing rate",
            "synaptic operations",
            "membrane updates",
            "MACs, one dense forward",
        ],
        rows,
    )
    parts = ", ".join(f"{name.replace('_', ' ')} {value / 1e6:,.1f}" for name, value in macs.items())
    terminal.say(f"Other parts, in million MACs: {parts} (visual tokens only).")


def _show_estimates(terminal: Terminal, estimates: list[Estimate]) -> None:
    def micro(picojoules: float) -> str:
        return f"{picojoules / 1e6:,.1f}"

    terminal.table(
        ["profile", "synapses", "neurons", "routing", "spiking branch", "ANN", "concrete encoder", "break-even"],
        [
            [
                one.profile.name,
                micro(one.synapse),
                micro(one.neuron),
                micro(one.routing),
                micro(one.spiking),
                micro(one.dense_twin),
                micro(one.artificial["concrete_encoder"]),
                f"{one.break_even:.3g}",
            ]
            for one in estimates
        ],
    )
    terminal.say(
        "Estimates, in µJ per image. ANN: one forward pass of the ANN of the same shape as the spiking branch. "
        "Break-even: the spikes per input and image at which the synapses cost as much. "
        "The conclusion depends on the profile. Not counted: fetching weights and state, sampling, static power."
    )
    for one in estimates:
        synapse, mac = one.profile.synaptic_operation, one.profile.mac
        terminal.say(
            f"{one.profile.name}: {one.profile.title}. Synapse {synapse.value} {synapse.unit}: {synapse.source}. "
            f"MAC {mac.value} {mac.unit}: {mac.source}."
        )


def _show_way_on(terminal: Terminal, output: Path, seconds: float) -> None:
    terminal.console.print(f"\n[bold]Done in {seconds:.0f} s.[/] Next steps:")
    terminal.say(f"open {output / 'contact_sheet.png'}, {output / 'spikes.png'} and {output / 'summary_ratio.png'}")
    for command, what in (
        ("ashnets list", "list all models"),
        (f"ashnets describe {MODEL}", "its configuration, parameters and results"),
        ("ashnets data pictograms --with openclipart", "build its training corpus"),
        ("ashnets train tiny-pictograms -o runs/tiny", "train it again"),
    ):
        terminal.say(f"{command:<44}{what}")
