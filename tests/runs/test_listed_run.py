"""A published layout through the program, read step by step: killed, gone on with, the bits of the run in memory."""

import csv
import signal

from helpers import layouts
from helpers.commands import KILLER, by_way_of_mlir, metrics_of, run, summary_of

SHORT = [
    "--config=configs/own_images.py:small",
    "--config.devices=1",
    "--config.model=resnet8(width=4)",
    "--config.stages=('pretrain', 'finetune')",
    "--config.pretrain.monitor=knn(k=5)",
    "--config.finetune.eval_every=percent(100)",
    *(f"--config.{stage}.length=steps(6)" for stage in ("pretrain", "finetune")),
    *(f"--config.{stage}.batch_size=8" for stage in ("pretrain", "finetune")),
    *(f"--config.{stage}.save_every=steps(2)" for stage in ("pretrain", "finetune")),
]


def test_a_published_layout_with_a_broken_file(env, tmp_path):
    env = by_way_of_mlir(env)
    data = tmp_path / "clothing1m"
    layouts.clothing1m(data)
    broken = data / "images" / "3" / "13" / "noisy_train1.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    source = f"--config.dataset=clothing1m(path='{data}', size=8, broken=skip)"
    resident = run(env, tmp_path / "resident", source, "--config.feed=resident()", config=SHORT)
    assert resident.returncode == 0, resident.stderr
    assert "14 classes" in resident.stdout and "1 of 56 files cannot be read and are left out" in resident.stdout
    with open(tmp_path / "resident" / "skipped_files.csv", newline="", encoding="utf-8-sig") as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == str(broken) and row["reason"]

    streamed = [source, "--config.feed=streamed(workers=2)"]
    killed = run(env, tmp_path / "streamed", *streamed, program=(KILLER, "before step 10"), config=SHORT)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = run(env, tmp_path / "streamed", *streamed, config=SHORT)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "finetune: resuming from step 2 of 6" in done.stdout
    for stage in ("pretrain", "finetune"):
        ours, theirs = (summary_of(tmp_path / name, stage) for name in ("streamed", "resident"))
        assert ours["params_sha256"] == theirs["params_sha256"]
        assert ours["identity_sha256"] == theirs["identity_sha256"]
        assert metrics_of(tmp_path / "streamed", stage) == metrics_of(tmp_path / "resident", stage)
    assert ours["seconds_waiting_for_images"] >= 0 and "seconds_waiting_for_images" not in theirs


def test_parts_of_whole_pictures_are_the_same_bits_after_a_kill_and_for_any_workers(env, tmp_path):
    layouts.folder(tmp_path / "photos", classes=2, each=16)
    recipe = "compose(whole_crop(0.2), flip(), normalise((0.5,), (0.25,)))"
    own = [
        f"--config.dataset=folder(path='{tmp_path}/photos', size=8, resize=9)",
        *(f"--config.{stage}.augment={recipe}" for stage in ("pretrain", "finetune")),
    ]
    whole = run(env, tmp_path / "whole", *own, config=SHORT)
    assert whole.returncode == 0, whole.stderr
    assert "read from their source step by step" in whole.stdout  # of itself: in memory there are no whole pictures
    other = [*own, "--config.feed=streamed(workers=3)"]
    killed = run(env, tmp_path / "killed", *other, program=(KILLER, "before step 4"), config=SHORT)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = run(env, tmp_path / "killed", *other, config=SHORT)
    assert done.returncode == 0, done.stderr
    assert "pretrain: resuming from step 2 of 6" in done.stdout
    for stage in ("pretrain", "finetune"):
        assert metrics_of(tmp_path / "killed", stage) == metrics_of(tmp_path / "whole", stage)

    refused = run(env, tmp_path / "other", *own, "--config.feed=resident()", config=SHORT)
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: config.pretrain.augment: whole pictures are cut as they are read; set config.feed='streamed()'\n"
    )


def test_parts_of_whole_pictures_in_parquet_files_are_the_same_bits_for_any_workers(env, tmp_path):
    layouts.parquet(tmp_path)
    own = [
        f"--config.dataset=parquet(path='{tmp_path}/data', size=8, resize=9)",
        "--config.stages=('finetune',)",
        "--config.finetune.init=none()",
        "--config.finetune.augment=compose(whole_crop(0.2), flip())",
    ]
    for workers in (1, 3):
        done = run(env, tmp_path / f"{workers}", *own, f"--config.feed=streamed(workers={workers})", config=SHORT)
        assert done.returncode == 0, done.stderr
    assert metrics_of(tmp_path / "1", "finetune") == metrics_of(tmp_path / "3", "finetune")
    for source in ("digits()", "development(digits())"):  # arrays: neither in memory nor streamed
        refused = run(env, tmp_path / "arrays", *own, f"--config.dataset={source}", config=SHORT)
        assert refused.returncode == 2
        assert refused.stderr == (
            "error: config.finetune.augment: there are no whole pictures to cut in this data set; "
            "use resized_crop() or crop()\n"
        )


def test_what_learns_from_labels_refuses_images_of_one_class(env, tmp_path):
    for number in range(20):
        layouts.picture(tmp_path / "photos" / f"{number}.jpg", 0, number)
    dataset = f"--config.dataset=folder(path='{tmp_path}/photos', size=8)"
    refused = run(env, tmp_path / "run", dataset, config=SHORT)
    assert refused.returncode == 2
    assert refused.stderr == "error: config.finetune: it learns from labels, and the images are all of one class\n"
    alone = run(env, tmp_path / "run", dataset, "--config.stages=('pretrain',)", config=SHORT)
    assert alone.returncode == 0, alone.stderr
