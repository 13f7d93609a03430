import os

import pytest

from flowers_tpu.convert import csv_list, photo_list
from flowers_tpu.system.errors import RequestError


def put(folder, *names, content="photo"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def listed(folder):
    return {p.name: (p.label, p.split) for p in photo_list.list_folder(str(folder)).photos}


def csv(folder, text, photos=""):
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return csv_list.list_csv(str(folder / "list.csv"), str(photos)).photos


# A folder


def test_a_folder_per_class(tmp_path):
    put(
        tmp_path, "rose/1.jpg", "rose/deeper/2.PNG", "tulip /3.webp", "test/4.jpg", "test/all/5.jpg"
    )
    assert listed(tmp_path) == {
        "rose/1.jpg": ("rose", None),
        "rose/deeper/2.PNG": ("rose", None),
        "tulip /3.webp": ("tulip", None),
        "test/4.jpg": (None, "test"),
        "test/all/5.jpg": (None, "test"),
    }
    photos = photo_list.list_folder(str(tmp_path)).photos
    assert [p.name for p in photos] == sorted(p.name for p in photos)
    assert all(p.path == f"{tmp_path}/{p.name}" for p in photos)


def test_a_folder_that_is_split_already(tmp_path):
    put(tmp_path, "train/rose/1.jpg", "train/tulip/2.jpg", "val/rose/3.jpg")
    put(tmp_path, "test/4.jpg", "test/rose/5.jpg", "test/other/6.jpg")
    assert listed(tmp_path) == {
        "train/rose/1.jpg": ("rose", "train"),
        "train/tulip/2.jpg": ("tulip", "train"),
        "val/rose/3.jpg": ("rose", "val"),
        "test/4.jpg": (None, "test"),
        "test/rose/5.jpg": ("rose", "test"),
        "test/other/6.jpg": (None, "test"),
    }


def test_without_val_the_photos_of_train_are_still_to_be_divided(tmp_path):
    put(tmp_path, "train/rose/1.jpg", "test/2.jpg")
    assert listed(tmp_path) == {"train/rose/1.jpg": ("rose", None), "test/2.jpg": (None, "test")}


def test_other_files_are_listed_and_hidden_ones_left_out(tmp_path):
    put(tmp_path, "rose/1.jpg", "rose/notes.txt", "rose/more.TXT", "README", "rose/x.xmp")
    put(tmp_path, "rose/without_ending")
    put(tmp_path, "rose/.DS_Store", "rose/._1.jpg", ".cache/2.jpg", "rose/.thumbnails/1.jpg")
    listing = photo_list.list_folder(str(tmp_path))
    assert [p.name for p in listing.photos] == ["rose/1.jpg", "rose/without_ending"]
    names = ["README", "rose/more.TXT", "rose/notes.txt", "rose/x.xmp"]
    assert listing.ignored == [(name, "no photo by its name's ending") for name in names]


def test_folders_without_photos_are_told(tmp_path):
    put(tmp_path, "one/rose/1.jpg", "one/tulip/2.txt", "one/test/3.txt")
    assert photo_list.list_folder(str(tmp_path / "one")).empty == ["test", "tulip"]
    put(tmp_path, "two/train/rose/1.jpg", "two/train/iris/sub/2.txt", "two/val/rose/1.jpg")
    assert photo_list.list_folder(str(tmp_path / "two")).empty == ["train/iris"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    put(tmp_path, "elsewhere/1.jpg", "photos/rose/2.jpg")
    (tmp_path / "photos" / "tulip").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "rose" / "again").symlink_to(tmp_path / "photos")
    assert listed(tmp_path / "photos") == {
        "rose/2.jpg": ("rose", None),
        "tulip/1.jpg": ("tulip", None),
    }


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Validation", "Test"),
        ("training", "validation", "testing"),
        ("TRAIN", "valid", "eval"),
        ("train", "dev", "TEST"),
    ],
)
def test_splits_by_their_usual_names(tmp_path, train, val, test):
    put(
        tmp_path, f"{train}/rose/1.jpg", f"{train}/lily/2.jpg", f"{val}/rose/3.jpg", f"{test}/4.jpg"
    )
    assert listed(tmp_path) == {
        f"{train}/rose/1.jpg": ("rose", "train"),
        f"{train}/lily/2.jpg": ("lily", "train"),
        f"{val}/rose/3.jpg": ("rose", "val"),
        f"{test}/4.jpg": (None, "test"),
    }


def test_test_photos_beside_classes_by_their_usual_names(tmp_path):
    put(tmp_path, "rose/1.jpg", "lily/2.jpg", "Testing/3.jpg")
    assert listed(tmp_path)["Testing/3.jpg"] == (None, "test")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg", "rose/2.jpg"], r"1 photos are in no folder of a class \(such as 1.jpg\)"),
        (["train/1.jpg", "train/rose/2.jpg"], "such as train/1.jpg"),
        (["train/rose/1.jpg", "rose/2.jpg"], "holds train and also rose"),
        (["val/rose/1.jpg"], "holds val but no train"),
        (["train/rose/1.jpg", "training/rose/2.jpg"], "train and training name one and the same"),
        (["train_set/rose/1.jpg", "val_set/rose/2.jpg"], "train_set, val_set look like splits"),
        (["TrainImages/rose/1.jpg", "2_test/2.jpg"], "2_test, TrainImages look like splits"),
        (["Train /rose/1.jpg", "Tests/rose/2.jpg"], "Tests, Train  look like splits"),
        (["flowers/rose/1.jpg", "flowers/lily/2.jpg"], "did you mean --photos=.*/flowers"),
        (["a/b/rose/1.jpg", "a/b/lily/2.jpg"], "'a', but it holds folders itself .such as a/b/"),
    ],
)
def test_folders_that_are_not_clear_are_refused(tmp_path, names, message):
    put(tmp_path, *names)
    with pytest.raises(RequestError, match=message):
        listed(tmp_path)


@pytest.mark.parametrize(
    "classes",
    [("freight_train", "night-train"), ("valley", "trainer"), ("test_tube", "train_set", "x")],
)
def test_classes_may_have_names_that_remind_of_splits(tmp_path, classes):
    put(tmp_path, *(f"{name}/1.jpg" for name in classes))
    assert {label for label, _ in listed(tmp_path).values()} == set(classes)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(RequestError, match=f"--photos={tmp_path}/none: no such folder"):
        listed(tmp_path / "none")


# A CSV


def test_a_csv(tmp_path):
    text = (
        "\ufefflabel,path,split,note\nrose, a/1.jpg,,x\nNA,2.jpg,val,\n,3.jpg,,\nrose,4.jpg,test,\n"
    )
    photos = csv(tmp_path, text)
    assert [(p.name, p.label, p.split) for p in photos] == [
        ("2.jpg", "NA", "val"),
        ("3.jpg", None, "test"),
        ("4.jpg", "rose", "test"),
        ("a/1.jpg", "rose", None),
    ]
    assert photos[3].path == f"{tmp_path}/a/1.jpg"
    other = csv(tmp_path, text, photos=tmp_path / "b")
    assert other[3].path == f"{tmp_path}/b/a/1.jpg"
    assert [p.name for p in other] == [p.name for p in photos]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\n1.jpg\n", "no column label; expected path,label"),
        ("a,b\n1,2\n", "no column label and no column path"),
        (
            "path,label,split\n1.jpg,a,\n2.jpg,a,holdout\n",
            "row 2 .*'holdout', expected train",
        ),
        ("path,label,split\n1.jpg,,train\n", "row 1 .*a photo for train without a label"),
        ("path,label\n1.jpg,a\n./1.jpg,b\n", "row 2 .*./1.jpg stands in row 1 already"),
        ("path,label\n,a\n", "row 1 .*its path is empty"),
        ("path,label\na.jpg,a\nb\0.jpg,a\n", r"row 2 .*holds a null byte: 'b\\x00.jpg'"),
        ("file;class\n1;a\n", "its columns are 'file;class'"),
        ("path;label\n1;a\n", r"columns are 'path;label' \(commas separate columns\)"),
        ("Path,Label\n1,a\n", "its columns are 'Path', 'Label'"),
        ("path,label\n1.jpg,a,b,c\n2.jpg,a,b,c,d\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(tmp_path, text, message):
    with pytest.raises(RequestError, match=f"--csv={tmp_path}/list.csv.*{message}"):
        csv(tmp_path, text)


def test_a_csv_whose_rows_are_longer_than_its_header(tmp_path):
    (tmp_path / "photos.csv").write_text("path,label\na.jpg,rose,train\n")
    with pytest.raises(RequestError, match="more fields than its header; name every column"):
        csv_list.list_csv(str(tmp_path / "photos.csv"), "")


def test_a_missing_csv_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"none\.csv: cannot be read"):
        csv_list.list_csv(str(tmp_path / "none.csv"), "")


# Classes


def with_labels(*labels):
    return [photo_list.Photo(f"/{n}.jpg", f"{n}.jpg", a, None, "") for n, a in enumerate(labels)]


def test_classes_are_sorted_numbers_as_numbers():
    assert photo_list.class_names(with_labels("b", "a", None, "b", "10")) == ("10", "a", "b")
    assert photo_list.class_names(with_labels("10", "9", "0")) == ("0", "9", "10")
    wanted = ("c", "a", "b")
    assert photo_list.class_names(with_labels("a", "b"), wanted) == wanted


@pytest.mark.parametrize(
    ("labels", "wanted", "message"),
    [
        (["a", "sunflowr"], ["a", "sunflower"], "no 'sunflowr' .did you mean 'sunflower'.*1.jpg"),
        (["a\nb"], [], "0.jpg: its class 'a.*nb' is no name"),
        ([None], [], "no photo has a class"),
        ([], [], "no photo has a class"),
    ],
)
def test_classes_that_cannot_be(labels, wanted, message):
    with pytest.raises(RequestError, match=message):
        photo_list.class_names(with_labels(*labels), wanted)


# Identical photos and ids


def test_identical_photos_are_found_by_content(tmp_path):
    put(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg", content="same")
    put(tmp_path, "a/0.jpg", "b/4.jpg", content="SAME")
    put(tmp_path, "a/5.jpg", content="another size")
    photos = photo_list.list_folder(str(tmp_path)).photos
    missing = photos[0]._replace(path=str(tmp_path / "none"), name="none")
    seen = []
    same_as = photo_list.find_identical([*photos, missing], lambda: seen.append(1))
    assert same_as == {"a/2.jpg": "a/1.jpg", "b/3.jpg": "a/1.jpg", "b/4.jpg": "a/0.jpg"}
    assert len(seen) == 7


def test_ids_are_readable_and_safe():
    names = ["rose/image_01.jpg", "rose/sub/2.tar.png", "été/ß 3.jpg", "../a,b\n;'.jpg"]
    assert photo_list.ids_of(names) == ["rose-image_01", "rose-sub-2.tar", "été-ß_3", "..-a_b___"]
    assert photo_list.ids_of([os.fsdecode(b"rose/\xff.jpg")]) == ["rose-_"]


def test_ids_are_distinct_and_do_not_depend_on_other_photos_but_namesakes():
    names = ["a/1.jpg", "a/1.png", "a-1.jpg", "a b.jpg", "a_b.jpg", "c.jpg"]
    ids = photo_list.ids_of(names)
    assert len(set(ids)) == 6
    assert [i.rpartition("-")[0] for i in ids] == ["a-1", "a-1", "a-1", "a_b", "a_b", ""]
    assert (
        dict(zip(names[:4:2], ids[:4:2], strict=True)).items()
        <= dict(zip(names[2::-1], photo_list.ids_of(names[2::-1]), strict=True)).items()
    )
    # An id that looks like another with digits.
    tricky = [f"{ids[0]}.jpg", *names]
    assert len(set(photo_list.ids_of(tricky))) == 7


# Files under odd names, and of systems

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"


def test_photos_are_found_by_their_first_bytes(tmp_path):
    for name in ("rose/a.jpg?x=1", "rose/b.jpg_large", "tulip/c.pjpeg", "tulip/d.heic"):
        put(tmp_path, name)
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "tulip" / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    assert list(listed(tmp_path)) == [
        *("rose/a.jpg?x=1", "rose/b.jpg_large", "tulip/c.pjpeg", "tulip/d.heic")
    ]
    assert photo_list.list_folder(str(tmp_path)).ignored == [("tulip/film.mov", "a video")]


def test_what_systems_keep_beside_photos_is_no_photo(tmp_path):
    put(tmp_path, "rose/1.jpg", "rose/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "@eaDir/2.jpg")
    put(tmp_path, "__MACOSX/rose/._1.jpg", "__MACOSX/rose/1.jpg", "#recycle/rose/3.jpg")
    put(tmp_path, "$RECYCLE.BIN/4.jpg", "System Volume Information/5.jpg", "rose/#recycle/6.jpg")
    listing = photo_list.list_folder(str(tmp_path))
    assert [p.name for p in listing.photos] == ["rose/1.jpg"]
    assert listing.empty == [] and listing.ignored == []


def test_folders_of_systems_do_not_spoil_a_division(tmp_path):
    put(tmp_path, "train/rose/1.jpg", "val/rose/2.jpg", "@eaDir/a/3.jpg", "val/@eaDir/4.jpg")
    assert listed(tmp_path) == {
        "train/rose/1.jpg": ("rose", "train"),
        "val/rose/2.jpg": ("rose", "val"),
    }


# Given ids


def ids(photos):
    return {photo.name: photo.id for photo in photos}


def test_test_photos_keep_the_ids_that_their_names_are(tmp_path):
    put(tmp_path, "rose/1.jpg", "test/0000f.jpg", "test/1.jpg", "test/all/a.b.png", "test/x y.jpg")
    assert ids(photo_list.list_folder(str(tmp_path)).photos) == {
        "rose/1.jpg": "rose-1",
        "test/0000f.jpg": "0000f",
        "test/1.jpg": "1",
        "test/all/a.b.png": "a.b",
        "test/x y.jpg": "x y",
    }


def test_given_ids_are_kept_where_they_are_distinct(tmp_path):
    put(tmp_path, "rose/1.jpg", "test/a/1.jpg", "test/b/1.jpg", "test/b/rose-1.jpg", "test/c.jpg")
    assert ids(photo_list.list_folder(str(tmp_path)).photos) == {
        "rose/1.jpg": "rose-1",
        "test/a/1.jpg": "test-a-1",
        "test/b/1.jpg": "test-b-1",
        "test/b/rose-1.jpg": "test-b-rose-1",
        "test/c.jpg": "c",
    }


def test_a_csv_gives_ids(tmp_path, caplog):
    rows = ["a/1.jpg,rose,x1", "a/2.jpg,rose,twice", "a/3.jpg,,twice", "a/4.jpg,,", "b.jpg,, f0 "]
    rows += ["c.jpg,rose,a-1", "d.jpg,rose,d"]
    photos = csv(tmp_path, "\n".join(["path,label,id", *rows]))
    assert ids(photos) == {
        "a/1.jpg": "x1",
        "a/2.jpg": "a-2",
        "a/3.jpg": "a-3",
        "a/4.jpg": "a-4",
        "b.jpg": "f0",
        "c.jpg": "c",
        "d.jpg": "d",
    }
    assert "made of the paths: 3 (such as 'twice')" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, b"", "holds no files; expected a folder of photos per class"),
        ("photos/notes.txt", b"", "holds no photos, but 1 other files .such as notes.txt"),
        ("photos/train/a.tfrec", b"", "holds no photos, but train/a.tfrec: --from_tfrecords="),
        ("photos", b"PK\3\4", "is a zip archive; unpack it and give the folder"),
        ("photos", b"\x1f\x8b", "is a gzip archive; unpack it"),
        ("photos", b"path,label", "is a file; expected a folder with a folder of photos per"),
    ],
)
def test_what_was_given_for_a_folder_of_photos_is_said(tmp_path, name, content, message):
    path = tmp_path / (name or "photos/class/x")
    path.parent.mkdir(parents=True, exist_ok=True)
    if name:
        path.write_bytes(content)
    with pytest.raises(RequestError, match=f"--photos={tmp_path}/photos: {message}"):
        listed(tmp_path / "photos")


def test_a_csv_given_for_a_folder_is_said(tmp_path, monkeypatch):
    (tmp_path / "list.csv").write_text("path,label")
    with pytest.raises(RequestError, match=r"--csv=.*list\.csv takes a list of photos"):
        listed(tmp_path / "list.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=f"no such folder .a path from {tmp_path}"):
        photo_list.list_folder("none")
