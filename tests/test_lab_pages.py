"""What the pages and pictures of the paper lab say of figures that tests make up: the rows choose the words."""

import re
import types

import pytest

from train.experiments import (
    crops,
    degradation,
    depth,
    gradients,
    nets,
    pages,
    paper,
    responses,
    seeds,
    shortcuts,
    table6,
    unravelled,
)
from train.experiments.pages import Fact


def curve(net, training, test, seed=0, before=50.0):
    """Rows of two epochs; the first ends with another training error."""
    kind, layers = ("plain" if net.startswith("plain") else "residual"), int(re.search(r"\d+", net)[0])
    row = {"net": net, "kind": kind, "layers": layers, "seed": seed, "validation_error": test, "learning_rate": 0.1}
    return [row | {"epoch": 1, "iteration": 9, "training_error": before},
            row | {"epoch": 2, "iteration": 18, "training_error": training, "test_error": test}]  # fmt: skip


@pytest.mark.unit
def test_degradation_says_whether_it_is_seen():
    def told(*ends):
        titles = ("plain-20", "plain-56", "ResNet-20", "ResNet-56")
        return degradation.tell([row for title, end in zip(titles, ends, strict=True) for row in curve(title, *end)])

    facts, text = told((9.0, 12.0, 0, 51.0), (14.0, 16.0), (8.0, 11.0), (6.0, 10.0, 0, 53.0))
    assert (
        "plain-56 ends above plain-20 in training error (+5.00 points, -1.00 at half of the run, so that the gap is no "
        "narrower since the rate fell): the degradation of the paper." in text
    )
    assert "ResNet-56 ends below ResNet-20 in training error (-2.00 points, +3.00 at half of the run, so" in text
    assert "the gap is narrower since the rate fell): as in the paper." in text
    assert Fact("ResNet-56, test error (%)", 6.97, [10.0], "tfds:cifar10") in facts
    assert Fact("ResNet-56, training error (%)", "", [6.0]) in facts
    assert "18 steps of the paper's 64,000" in text
    _, text = told((9.0, 12.0), (7.0, 16.0), (8.0, 11.0), (8.5, 10.0))
    assert "plain-56 ends below plain-20 in training error (-2.00 points, +0.00 at half of the run, so" in text
    assert "ResNet-56 ends level with ResNet-20 in training error (+0.50 points" in text
    assert "no degradation, though not yet the paper's gain." in text
    _, text = told((9.0, 12.0), (9.0, 16.0), (8.0, 11.0), (18.5, 10.0))
    assert "plain-56 ends level with plain-20" in text
    assert "ResNet-56 ends above ResNet-20 in training error (+10.50 points, +0.00 at half of" in text
    assert text.count("since the rate fell): unlike in the paper") == 2
    long = [row | {"iteration": 64_000} for row in curve("plain-20", 9.0, 12.0) + curve("plain-56", 14.0, 16.0)]
    assert "steps of the paper's" not in degradation.tell(long)[1]


@pytest.mark.unit
def test_several_seeds_are_shown_and_must_agree():
    made_up = [row for seed in (0, 1) for row in curve("plain-20", 9.0, 12.0 + seed, seed)]
    facts, text = degradation.tell([*made_up, *curve("plain-56", 9.2, 16.0), *curve("plain-56", 9.3, 16.0, 1)])
    assert "plain-56 ends above plain-20 in training error (+0.25 points" in text
    assert "Of 2 seeds: a difference whose sign is not the same in all of them is read as none." in text
    (fact,) = [fact for fact in facts if fact.what == "plain-20, test error (%)"]
    assert pages.number(fact.ours) == "12.50 (12.00 to 13.00, n=2)"
    (fact,) = [fact for fact in facts if fact.what.startswith("training error of plain-56 minus plain-20")]
    assert fact.ours == pytest.approx([0.2, 0.3])
    _, text = degradation.tell([*made_up, *curve("plain-56", 19.0, 16.0), *curve("plain-56", 8.9, 16.0, 1)])
    assert "plain-56 ends level with plain-20" in text


@pytest.mark.unit
@pytest.mark.parametrize(("differences", "sign"), [
    ([1.0], 1), ([0.9], 0), ([-0.9], 0), ([-1.5], -1), ([0.1, 0.2], 1), ([-0.1, -0.2, -3.0], -1), ([-0.1, 5.0], 0),
    ([0.0, 0.0], 0), ([0.0, 2.0], 0),
])  # fmt: skip
def test_what_differences_show(differences, sign):
    assert seeds.direction(differences) == sign


def lines(figure):
    """Style of each labelled curve of a figure, which is closed."""
    found = {line.get_label(): (line.get_linestyle(), line.get_color(), line.get_ydata()[-1])
             for axes in figure.axes for line in axes.lines}  # fmt: skip
    pages.plt.close(figure)
    return found


@pytest.mark.unit
def test_degradation_is_drawn_dashed_in_training_and_solid_on_held_out_images():
    depths = (20, 32, 44, 56, 110, 164, 200, 1202)
    found = lines(degradation.draw([row for depth in depths for row in curve(f"ResNet-{depth}", 8.0, 11.0)]
                                   + curve("plain-20", 9.0, 12.0) + curve("ResNet-20 (B)", 7.0, 13.0)))  # fmt: skip
    assert found["plain-20, training"] == ("--", pages.COLOURS[0], 9.0)
    assert found["plain-20, held-out"] == ("-", pages.COLOURS[0], 12.0)
    assert found["ResNet-20, held-out"] == ("-", pages.COLOURS[0], 11.0)
    assert found["ResNet-20 (B), training"] == ("--", pages.COLOURS[1], 7.0)
    assert len(found) == 20
    half = [row | {"test_error": 50.0} for row in curve("plain-20", 9.0, 12.0)[:1]]
    found = lines(degradation.draw([*half, *curve("plain-20", 9.0, 12.0)[1:]]))
    assert found["plain-20, test"] == ("-", pages.COLOURS[0], 12.0)


@pytest.mark.unit
def test_the_checkpoints_after_which_test_images_were_scored_make_the_curve():
    of_two = curve("plain-20", 9.0, 12.0)
    assert "which are scored once here, at the end" in degradation.tell(of_two)[1]
    assert "scored once" not in degradation.tell([row | {"test_error": 12.0} for row in of_two])[1]
    few = [of_two[0] | {"epoch": epoch} | ({"test_error": 12.0} if epoch > 13 else {}) for epoch in range(1, 17)]
    assert "scored once" in degradation.tell(few)[1]


def deviations(net, *values, seed=0):
    row = curve(net, 0.0, 0.0, seed)[0]
    return [row | {"layer": layer, "standard_deviation": value} for layer, value in enumerate(values, start=1)]


@pytest.mark.unit
def test_responses_say_which_net_is_below():
    found = deviations("plain-20", 2.0, 4.0) + deviations("ResNet-20", 1.0, 2.0)
    facts, text = responses.tell(found + deviations("ResNet-20 (B)", 4.0, 5.0) + deviations("ResNet-56", 2.0, 1.6))
    ratios = {fact.what: fact.ours for fact in facts if " over " in fact.what}
    assert ratios == {"ResNet-20 over plain-20": [0.5], "ResNet-20 (B) over plain-20": [1.5],
                      "ResNet-56 over ResNet-20": [pytest.approx(1.2)]}  # fmt: skip
    assert "ResNet-20 lies below plain-20 in the mean, as in the paper." in text
    assert "ResNet-20 (B) lies above plain-20 in the mean, unlike in the paper." in text
    assert "ResNet-56 lies above ResNet-20 in the mean, unlike in the paper." in text
    assert "Of one seed" in text
    several = [row for seed in (0, 1) for row in deviations("plain-20", 2.0, seed=seed)]
    _, text = responses.tell(several + deviations("ResNet-20", 1.0) + deviations("ResNet-20", 3.0, seed=1))
    assert "ResNet-20 lies below plain-20 in the mean of some of the seeds alone." in text
    assert "Of one seed" not in text
    _, text = responses.tell(deviations("plain-20", 2.0, 2.0) + deviations("ResNet-20", 1.0, 2.97))
    assert "ResNet-20 is level with plain-20 in the mean; in the paper it lies below." in text


@pytest.mark.unit
def test_responses_are_drawn_plain_dashed_and_sorted_below():
    figure = responses.draw(deviations("plain-20", 1.0, 2.0, 1.5) + deviations("ResNet-20", 0.5, 1.5, 1.0))
    top, bottom = figure.axes
    assert [*bottom.lines[0].get_ydata()] == [2.0, 1.5, 1.0]
    assert [*top.lines[0].get_ydata()] == [1.0, 2.0, 1.5]
    assert [line.get_linestyle() for line in top.lines] == ["--", "-"]
    assert top.get_yscale() == "linear"
    pages.plt.close(figure)
    figure = responses.draw(deviations("plain-20", 60.0, 2.0, 1.5) + deviations("ResNet-20", 0.5, 1.5, 1.0))
    assert figure.axes[0].get_yscale() == "log"  # or the others would be one line at zero
    pages.plt.close(figure)


@pytest.mark.unit
def test_gradients_say_what_is_seen():
    def rows_of(net, start, later):
        row = curve(net, 0.0, 0.0)[0]
        return [
            row | {"epoch": epoch, "iteration": 10 * epoch, "layer": layer, "gradient_norm": norm}
            for epoch, of_layers in {0: [start, 1.0, 1.0, 1.0], 5: [later, 0.1, 1.0, 1.0]}.items()
            for layer, norm in enumerate(of_layers, start=1)
        ]

    facts, text = gradients.tell(rows_of("plain-56", 200.0, 0.25) + rows_of("ResNet-56", 2.0, 0.5))
    shown = {fact.what: fact.ours for fact in facts}
    medians = "plain-56: median of the first quarter of the layers over that of the last"
    assert shown[f"{medians}, at the start"] == [200.0]
    assert shown[f"{medians}, after 50 iterations"] == [0.25]
    assert shown["plain-56: weakest layer over strongest, at the start"] == [0.005]
    assert shown["plain-56: weakest layer over strongest, after 50 iterations"] == [0.1]
    assert shown["plain-56: weakest layer over strongest, the smallest while it trained"] == [0.1]
    assert "plain-56, weakest layer over strongest: while it trained never below 0.1 (ResNet-56: 0.1)." in text
    assert "median of all layers over the last layer: while it trained never below 0.62 (ResNet-56: 0.75)." in text
    assert "By 2 of the 3 measures the gradients of plain-56 are spread wider than those of ResNet-56." in text
    assert "At the start its first layers' norm is 200.0 times the last layers'" in text
    assert "No checkpoints were kept of plain-56 before epoch 5, ResNet-56 before epoch 5" in text
    _, text = gradients.tell(rows_of("plain-56", 0.5, 0.05) + rows_of("ResNet-56", 2.0, 0.2))
    assert "By all of the 3 measures" in text
    _, text = gradients.tell(rows_of("plain-56", 0.5, 0.5) + rows_of("ResNet-56", 2.0, 0.2))
    assert "By none of the 3 measures" in text
    assert "At the start" not in text
    early = [row | {"epoch": min(row["epoch"], 1)} for row in rows_of("plain-56", 0.5, 0.5)]
    assert "No checkpoints" not in gradients.tell(early)[1]
    facts, text = gradients.tell([row for row in rows_of("plain-56", 200.0, 0.5) if not row["epoch"]])
    assert [fact.ours for fact in facts] == [[200.0], [1.0], [0.005]]
    assert "No checkpoints were kept of plain-56:" in text


def whole(net, shortcut, error, seed=0):
    row = {"net": net, "layers": int(re.search(r"\d+", net)[0]), "seed": seed, "shortcut": shortcut}
    return row | {"kind": "whole", "block": 0, "name": "", "test_error": error, "test_images": 5000}


def with_lesions(net, shortcut, error, *dropped):
    row = whole(net, shortcut, error)
    return [row, row | {"kind": "intact", "test_error": error + 0.5}] + [
        row | {"kind": "dropped", "block": block, "test_error": value} for block, value in enumerate(dropped, start=1)
    ]


@pytest.mark.unit
def test_unravelled_compares_with_the_identity_of_the_same_depth_alone():
    made_up = [*with_lesions("plain-20", "none", 50.0, 90.0, 80.0, 85.0),
               *with_lesions("ResNet-20", "A", 9.0, 12.5, 10.5, 11.5), *with_lesions("ResNet-56", "A", 6.0, 7.5),
               whole("ResNet-20 (scaled)", "scaled", 12.0), whole("ResNet-20 (gated)", "gated", 9.5),
               whole("ResNet-20 (dropout)", "dropout", 7.0)]  # fmt: skip
    facts, text = unravelled.tell(made_up)
    gained = {fact.what.partition(" minus")[0]: (fact.paper, fact.ours) for fact in facts if " minus " in fact.what}
    assert gained == {"constant scaling, 0.5 and 0.5": (pytest.approx(12.35 - 6.61), [3.0]),
                      "exclusive gating": (pytest.approx(8.70 - 6.61), [0.5]),
                      "dropout 0.5": ("fails", [-2.0])}  # fmt: skip
    assert Fact("ResNet-20: without one block, median (%)", "little changed (figure 3)", [11.5]) in facts
    assert Fact("plain-20: without one block, median (%)", "chance (Veit et al., figure 3)", [85.0]) in facts
    assert "Without one block ResNet-20 makes +2.00 points of errors in the median." in text
    assert "Every plain net loses more than every residual net, as Veit et al. see it" in text
    assert "Worse than the identity: constant scaling, 0.5 and 0.5. Level with it: exclusive gating. Better" in text
    assert "the shortcut's expectation stays 1" in text
    _, text = unravelled.tell(
        [*with_lesions("plain-20", "none", 50.0, 51.0), *with_lesions("ResNet-20", "A", 9.0, 80.0)]
    )
    assert "unlike in Veit et al." in text
    assert "gate" not in text
    assert "Scored on 5,000 test images" in text
    assert "not trained out" not in text
    worse = [whole("ResNet-20", "A", 9.0), whole("ResNet-56", "A", 12.0)]
    assert "ResNet-56 is worse than ResNet-20 as a whole (12.00 and 9.00 %): it is not" in unravelled.tell(worse)[1]
    facts, text = unravelled.tell([whole("ResNet-20 (gated)", "gated", 9.5), whole("ResNet-20 (C)", "C", 9.5)])
    assert [fact.what for fact in facts] == ["ResNet-20 (gated): test error (%)", "ResNet-20 (C): test error (%)"]
    assert "identity" not in text
    assert "Scored" not in text
    pages.plt.close(unravelled.draw(made_up))
    pages.plt.close(unravelled.draw([whole("ResNet-20 (gated)", "gated", 9.5)]))


def option(name, error, net="ResNet-20", seed=0):
    return {"option": name, "net": net, "layers": 20, "test_error": error, "training_error": 1.0, "parameters": 9,
            "multiply_adds": 8, "seed": seed, "epochs": 16, "test_images": 5000}  # fmt: skip


@pytest.mark.unit
def test_shortcuts_are_told_apart_as_far_as_the_rows_do():
    errors = {"none": 15.0, "A": 9.0, "B": 8.5, "C": 5.0}
    facts, text = shortcuts.tell([option(*pair) for pair in errors.items()])
    differences = {fact.what.partition(" (")[0]: (fact.paper, fact.ours) for fact in facts if " minus " in fact.what}
    assert differences == {
        "A minus none": (pytest.approx(25.03 - 28.54), [-6.0]),
        "B minus A": (pytest.approx(24.52 - 25.03), [-0.5]),
        "C minus B": (pytest.approx(24.19 - 24.52), [-3.5]),
    }
    assert "From the lowest test error: C, B, A, none. A, B and C are better than no shortcut, as in the paper." in text
    assert "B is level with A. C is better than A. C is better than B." in text
    assert "One seed and 5,000 test images cannot show differences so small" in text
    assert "a difference below 1 point, or two standard errors on 5,000 test images, is read as none" in text
    assert "16 epochs of the paper's 182 do not show" in text
    _, text = shortcuts.tell([option("none", 9.0), option("A", 9.5), option("B", 11.0)])
    assert "A is level with no shortcut; the paper has gains. B is worse than no shortcut, unlike in the paper." in text
    fewer = [option(*pair) | {"test_images": 100} for pair in errors.items()]
    assert "A and B are level with no shortcut" in shortcuts.tell(fewer)[1]
    several = [option(name, error, seed=seed) for name, error in errors.items() for seed in (0, 1)]
    assert "One seed" not in shortcuts.tell(several)[1]


@pytest.mark.unit
def test_options_are_those_of_the_nets(monkeypatch):
    names = ("PlainNet20", "ResNet20", "ResNet20:B", "ResNet20:C", "ResNet8", "ResNet34", "ResNet34:A")
    trained = [types.SimpleNamespace(net=nets.parse_net(name)) for name in names]
    monkeypatch.setattr(table6, "measure", lambda runs, _: [{} for _ in runs])
    assert [row["option"] for row in shortcuts.measure(trained, None)] == ["none", "A", "B", "C", "B", "B", "A"]


@pytest.mark.unit
def test_table6_has_the_errors_of_the_last_epoch():
    net = nets.Net("ResNet8")
    run = types.SimpleNamespace(net=net, config=types.SimpleNamespace(seed=4, epochs=2))
    run.tester = lambda model: lambda: {"test_error": 7.0, "test_images": 5}
    run.model = lambda: net.build((8, 8, 1))
    run.history = lambda: [{"accuracy": 0.5, "val_accuracy": 0.25}, {"accuracy": 0.75, "val_accuracy": 0.625}]
    (row,) = table6.measure([run], None)
    assert (row["training_error"], row["validation_error"], row["test_error"]) == (25.0, 37.5, 7.0)
    assert (row["net"], row["seed"], row["epochs"], row["test_images"]) == ("ResNet-8", 4, 2, 5)


@pytest.mark.unit
def test_table6_and_depth_say_what_depth_does():
    made_up = [option("A", error, net) | {"layers": layers} for net, layers, error in (
        ("ResNet-20", 20, 9.0), ("ResNet-56", 56, 7.0), ("ResNet-110", 110, 7.5))]  # fmt: skip
    facts, text = table6.tell(made_up)
    assert "The lowest error has ResNet-56. ResNet-56 is better than ResNet-20. ResNet-110 is level with" in text
    assert Fact("ResNet-110, test error (%)", 6.43, [7.5], "tfds:cifar10") in facts
    deepest = {"net": "ResNet-44", "layers": 44, "parameters": 660_000, "file_bytes": 5}
    deepest |= {f"{name}_seconds": 1.5 for name in ("build", "first_step", "second_step", "export")}
    facts, text = depth.tell([*made_up, deepest | {"step_peak_mb": 2, "export_peak_mb": 3}])
    assert "ResNet-44 is built" in text
    assert "(the paper: 7.17 %)" in text
    assert Fact("ResNet-44, step peak (MB)", "", 2) in facts
    unknown = [option("B", 9.0, "ResNet-20 (B)")]  # of which the paper has no error
    assert [*lines(depth.draw(unknown))] == ["ours, test", "ours, training"]
    assert len(lines(depth.draw(made_up))) == 3


@pytest.mark.unit
def test_crops_of_several_seeds_are_all_told():
    made_up = [{"net": net, "seed": seed, "views": way, "top1_error": 30.0 - place - seed, "num_images": 100}
               for net in ("ResNet-50", "ResNet-34") for seed in (0, 1)
               for place, way in enumerate((crops.ONE, crops.TEN, crops.SCALES))]  # fmt: skip
    facts, text = crops.tell(made_up)
    assert Fact("ResNet-50, 10 crops: top-1 error (%)", 22.85, [29.0, 28.0], "ImageNet") in facts
    assert Fact("ResNet-34, scales: top-1 error (%)", 21.84, [28.0, 27.0], "ImageNet") in facts
    assert [fact.ours for fact in facts if "10 crops minus 1 crop" in fact.what] == [[-1.0, -1.0]] * 2
    assert [fact.difference("ImageNet") != "" for fact in facts if "minus" in fact.what] == [True] * 2 + [False] * 2
    assert "ResNet-50: 10 crops better than 1 crop. ResNet-50: scales better than 10 crops. ResNet-34:" in text
    settings = types.SimpleNamespace(weights={"ResNet50": "a"}, data="folder:photographs")
    assert pages.data_of(settings, made_up) == "folder:photographs"
    assert pages.data_of(settings, [row | {"num_images": 50_000} for row in made_up]) == "ImageNet"


@pytest.mark.unit
def test_differences_and_spreads():
    assert Fact("", 8.75, 12.0).difference("digits") == "+3.25"
    assert Fact("", 8.75, 8.749).difference("digits") == "+0.00"
    assert Fact("", "above 0", 3.0).difference("digits") == ""
    assert Fact("", 8.75, [8.0, 9.0], "tfds:cifar10").difference("tfds:cifar10") == "-0.25"
    assert Fact("", 8.75, [8.0, 9.0], "tfds:cifar10").difference("digits") == ""
    assert pages.spread([8.0]) == "8.00"
    assert pages.spread([8.0, 9.0]) == "8.50 (8.00 to 9.00, n=2)"
    assert [pages.number(value) for value in (0.0044, 0.0, 12345, 1234.5, "fails")] == [
        "0.0044", "0.00", "12,345", "1,234.50", "fails"]  # fmt: skip


@pytest.mark.unit
def test_the_papers_figures_are_the_papers():
    """FACTS.md, and tables 1 to 4 and 6 of He 2015; table 1 of He 2016."""
    assert list(paper.CIFAR10_ERROR.items()) == [
        ("ResNet-20", 8.75), ("ResNet-32", 7.51), ("ResNet-44", 7.17), ("ResNet-56", 6.97), ("ResNet-110", 6.43),
        ("ResNet-1202", 7.93)]  # fmt: skip
    assert [*paper.CIFAR10_PARAMETERS] == [*paper.CIFAR10_ERROR]
    assert [*paper.CIFAR10_PARAMETERS.values()] == [0.27, 0.46, 0.66, 0.85, 1.7, 19.4]
    assert [*paper.MULTIPLY_ADDS.values()] == [1.8, 3.6, 3.8, 7.6, 11.3, 3.6]
    assert paper.TEN_CROP_ERROR == {
        "plain-18": 27.94, "ResNet-18": 27.88, "plain-34": 28.54, "ResNet-34 A": 25.03, "ResNet-34 B": 24.52,
        "ResNet-34 C": 24.19, "ResNet-50": 22.85, "ResNet-101": 21.75, "ResNet-152": 21.43}  # fmt: skip
    assert paper.MULTI_SCALE_ERROR == {
        "ResNet-34 B": 21.84,
        "ResNet-34 C": 21.53,
        "ResNet-50": 20.74,
        "ResNet-101": 19.87,
        "ResNet-152": 19.38,
    }
    assert paper.SHORTCUT_ERROR == {
        "A": 6.61, "scaled": 12.35, "gated": 8.70, "gated_shortcut": 6.91, "C": 12.22, "dropout": "fails"}  # fmt: skip
