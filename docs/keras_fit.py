"""Fine-tunes a network on the Oxford 102 flowers by plain Keras `fit`, as one does it by hand.

    python docs/keras_fit.py data/oxford102 mobilenet_v2.h5 --seed=0
    python docs/keras_fit.py data/oxford102 efficientnet_lite0_no_top.h5 --seed=0

What `oxford102.flags` is compared with in docs/training.md: the same network, photos, sizes, batch
and epochs, and of its ingredients those that Keras has: a head that is trained first, frozen batch
normalization, dropout, label smoothing, a cosine, its layers for augmentation, the optimizer's
average of weights, and the epoch of the best macro F1 on validation. It imports nothing of this
package.
"""

import argparse
import os
import tempfile
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np
import tensorflow as tf
from sklearn.metrics import f1_score

CLASSES, SIZE, EVALUATION_SIZE, BATCH = 102, 192, 224, 32
layers = tf.keras.layers


def photos(folder: str, split: str, size: int) -> tf.data.Dataset:
    """Reads (uint8 [size, size, 3], one-hot [102]) of a split, kept in memory."""

    def parse(record):
        features = {
            "image": tf.io.FixedLenFeature([], tf.string),
            "class": tf.io.FixedLenFeature([], tf.int64),
        }
        example = tf.io.parse_single_example(record, features)
        image = tf.io.decode_jpeg(example["image"], 3)
        image = tf.cast(tf.round(tf.image.resize(image, (size, size))), tf.uint8)
        return image, tf.one_hot(example["class"], CLASSES)

    shards = sorted(tf.io.gfile.glob(f"{folder}/{split}/*.tfrec"))
    return tf.data.TFRecordDataset(shards).map(parse).cache()


def build(weights: str) -> tuple[tf.keras.Model, tf.keras.Model]:
    """Returns the classifier, with its augmentation, and its backbone, which is not trained yet."""
    if "mobilenet_v2" in os.path.basename(weights):
        backbone = tf.keras.applications.MobileNetV2(
            input_shape=(None, None, 3), include_top=False, weights=weights
        )
        scale = layers.Rescaling(1 / 127.5, offset=-1)
    else:
        backbone = tf.keras.models.load_model(weights, compile=False)
        scale = layers.Rescaling(1.0)
    backbone.trainable = False
    pixels = tf.keras.Input((None, None, 3))
    x = layers.RandomFlip("horizontal")(pixels)
    x = layers.RandomZoom((-0.4, 0.0))(x)
    x = layers.RandomTranslation(0.1, 0.1)(x)
    x = layers.RandomContrast(0.2)(x)
    x = backbone(scale(x), training=False)  # batch normalization by its stored statistics
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return tf.keras.Model(pixels, layers.Dense(CLASSES)(x)), backbone


class BestMacroF1(tf.keras.callbacks.Callback):
    """Keeps the weights of the epoch of the best macro F1, the average's if there is one."""

    def __init__(self, validation: tf.data.Dataset, file: str):
        super().__init__()
        self.validation, self.file, self.best = validation, file, -1.0
        self.labels = np.concatenate([labels.numpy().argmax(1) for _, labels in validation])

    def on_epoch_end(self, epoch, logs=None):
        """Scores the weights as they would be kept, and keeps them if none were better."""
        optimizer, model = self.model.optimizer, self.model
        own = model.get_weights()
        if optimizer.use_ema:
            optimizer.finalize_variable_values(model.trainable_variables)
        predicted = model.predict(self.validation, verbose=0).argmax(1)
        score = f1_score(self.labels, predicted, average="macro")
        if score > self.best:
            self.best = score
            model.save_weights(self.file)
        model.set_weights(own)
        print(f"epoch {epoch + 1}: macro F1 {score:.4f}, best {self.best:.4f}", flush=True)


def main() -> None:
    """Trains the head, then everything but batch normalization; prints macro F1 and time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warmup_epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--learning_rate", type=float, default=4e-4)
    options = parser.parse_args()
    tf.keras.utils.set_random_seed(options.seed)
    begin = time.perf_counter()

    training = photos(options.data, "train", SIZE).shuffle(1020).batch(BATCH, drop_remainder=True)
    validation = photos(options.data, "val", EVALUATION_SIZE).batch(BATCH)
    model, backbone = build(options.weights)
    loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)

    model.compile(tf.keras.optimizers.Adam(2e-3), loss)
    model.fit(training.prefetch(2), epochs=options.warmup_epochs, verbose=0)

    backbone.trainable = True
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    steps = options.epochs * (1020 // BATCH)
    rate = tf.keras.optimizers.schedules.CosineDecay(
        0.0, steps * 9 // 10, warmup_target=options.learning_rate, warmup_steps=steps // 10
    )
    model.compile(tf.keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.99), loss)
    with tempfile.TemporaryDirectory() as folder:
        best = BestMacroF1(validation.prefetch(2), f"{folder}/best.h5")
        model.fit(training.prefetch(2), epochs=options.epochs, verbose=0, callbacks=[best])
    print(f"macro F1 {best.best:.4f} after {(time.perf_counter() - begin) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
