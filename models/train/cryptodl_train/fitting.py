"""The training loop: one for every recipe."""

import copy
import dataclasses
import os
import time

import torch
import torch.nn.functional as F
from torch import nn

from . import augmentation, data
from .muon import Muon
from .network import BatchNorm, Conv, Dense, Network, WhitenedConv, folded
from .recipe_torch import PolyActivation, rounding_error, rounding_noise


def build(recipe):
    norms = [layer for _, layer in recipe.architecture if isinstance(layer, BatchNorm)]
    if recipe.fused and (recipe.clamp is not None or any(layer.learned for layer in norms)):
        raise ValueError("batch-norm with learned factors and a clamp cannot be fused")
    clamp = recipe.clamp and (recipe.range_centre - recipe.clamp, recipe.range_centre + recipe.clamp)
    net = Network(recipe.architecture, recipe.activation, recipe.learned, clamp,
                  torch.bfloat16 if recipe.bfloat16 else torch.float32, data.SHAPES[recipe.dataset],
                  recipe.leading_factor)
    net.fused = recipe.fused
    return net


def noise(bits):
    """What adds noise of the size that rounding to integers of that many bits makes."""
    return lambda weight, _: rounding_noise(weight, bits)


def rounding(bits):
    """What rounds the weight of a layer to integers of as many bits as `bits` has for it.

    The gradient passes as if it did not.
    """
    return lambda weight, name: rounding_error(weight, bits[name])


def loss_of(net, recipe, images, targets, soft, grid=False):
    """(loss, cross-entropy without what is added to it).

    `targets` are labels, or probabilities of each where images were mixed. With `grid`, weights are
    rounded to the bits of `recipe.grid()`.
    """
    perturb = rounding(recipe.grid()) if grid else noise(recipe.weight_bits) if recipe.weight_bits else None
    logits, excess = net(images, perturb, (recipe.range_centre, recipe.range_limit))
    plain = F.cross_entropy(logits, targets)
    loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing) if recipe.label_smoothing else plain
    if soft is not None:
        t = recipe.temperature
        divergence = F.kl_div(F.log_softmax(logits / t, 1), soft, reduction="batchmean") * t * t
        loss = (1 - recipe.distillation) * loss + recipe.distillation * divergence
    if recipe.range_weight:
        loss = loss + recipe.range_weight * excess / len(images)
    return loss, plain


@torch.no_grad()
def start_filters(net):
    """Draws the filters of all convolutions anew: of norm 1, and near the identity where it fits.

    Biases become 0 for good: every convolution has a batch-norm behind it.
    """
    for module in net.modules():
        if not isinstance(module, (nn.Conv2d, WhitenedConv)):
            continue
        filters = next(p for p in module.parameters() if p.dim() == 4)
        filters.normal_().div_(filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        if filters.shape[2] == 3:
            own = torch.arange(min(filters.shape[:2]))
            filters[own] *= 0.5
            filters[own, own, 1, 1] += 0.8
        module.bias.zero_().requires_grad_(False)


def optimizer_of(net, recipe, steps, grid=False):
    """The optimizer and its schedule over so many steps in all."""
    learning_rate = recipe.grid_learning_rate if grid else recipe.learning_rate
    parameters = [p for p in net.parameters() if p.requires_grad]
    # On the grid batch-norm is fixed, and the norm of filters is no longer free.
    if recipe.optimizer == "muon" and not grid:
        filters = [p for p in parameters if p.dim() == 4]
        optimizer = Muon([{"params": filters, "lr": recipe.filter_learning_rate, "orthogonal": True},
                          {"params": [p for p in parameters if p.dim() != 4]}], learning_rate)
        warm = min(100, 0.1 * steps)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warm, (steps - step) / (steps - warm)))
    coefficients = {id(module.rows) for module in net.modules() if isinstance(module, PolyActivation)}
    decays = [p.dim() > 1 and id(p) not in coefficients for p in parameters]
    groups = [{"params": [p for p, decay in zip(parameters, decays) if decay], "weight_decay": recipe.weight_decay},
              {"params": [p for p, decay in zip(parameters, decays) if not decay], "weight_decay": 0.0}]
    if grid:
        optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=0.15, cycle_momentum=not grid)


class Checkpoint:
    """Everything that a training needs to go on after a pass, in a file that is replaced whole."""

    def __init__(self, path, recipe, generator, **parts):
        """`parts` have `state_dict` and `load_state_dict`."""
        self.path, self.generator, self.parts = path, generator, parts
        self.recipe = {field: repr(value) for field, value in dataclasses.asdict(recipe).items()}
        self.defaults = {field.name: repr(field.default) for field in dataclasses.fields(recipe)}

    def load(self):
        """Passes that are done; 0 without a file."""
        if self.path is None or not self.path.is_file():
            return 0
        state = torch.load(self.path, weights_only=True)
        # A setting that the recipes did not have then was at its default.
        before = self.defaults | state["recipe"]
        changed = [field for field, value in before.items() if self.recipe.get(field) != value]
        if changed:
            raise SystemExit(f"{self.path} is of a recipe with other settings ({', '.join(changed)}); use these again, "
                             "or delete the file to start anew")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["random"])
        return state["epochs"]

    def save(self, epochs):
        if self.path is None:
            return
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"recipe": self.recipe, "epochs": epochs, "generator": self.generator.get_state(),
                  "random": torch.get_rng_state()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.path)


def fit(recipe, train, held_out=None, teachers=(), log=print, checkpoint=None):
    """The trained network in evaluation mode.

    It has the moving average of the weights, and batch-norm statistics of the training images.
    `held_out` is only reported on. Everything random comes from the recipe's seed. After every pass
    the state is written to the file `checkpoint`, if one is named; a training that finds the file
    goes on from there.
    """
    torch.manual_seed(recipe.seed)
    net = build(recipe)
    net.whiten(train.images[:5000])
    if recipe.optimizer == "muon":
        start_filters(net)
    average = copy.deepcopy(net).requires_grad_(False)
    for path, cycle in zip(cycle_checkpoints(checkpoint), recipe.cycles()):
        passes(cycle, net, average, train, held_out, teachers, log, path)
    set_statistics(average, train.images, recipe.exact_statistics)
    if recipe.grid_epochs:
        average = on_grid(recipe.cycles()[-1], average, train, held_out, teachers, log, checkpoint)
    return average


def unfinished(recipe, path, train):
    """The network after the last pass that the checkpoint at `path` holds, as `fit` would return it.

    Weights that the phase on the grid has not trained yet are only rounded.
    """
    net = build(recipe)
    on_the_grid = grid_checkpoint(path).is_file()
    if on_the_grid:
        net.without_whitening()
    last = next(file for file in (grid_checkpoint(path), *reversed(cycle_checkpoints(path))) if file.is_file())
    net.load_state_dict(torch.load(last, weights_only=True)["average"])
    if not on_the_grid:
        set_statistics(net, train.images[:10000], recipe.exact_statistics)
        if recipe.grid_epochs:
            net = net.without_whitening()
            clip_to_grid(net, recipe.grid())
    net.eval()
    return folded(net, recipe.grid()) if recipe.grid_epochs else net


def cycle_checkpoints(path):
    """Files of the first and the second cycle; None without a path."""
    return (path, path.with_suffix(".second.pt")) if path else (None, None)


def grid_checkpoint(path):
    """File of the phase on the grid beside that of the phases before."""
    return path.with_suffix(".grid.pt")


def on_grid(recipe, trained, train, held_out, teachers, log, checkpoint):
    """The last phase: weights are integers of as many bits as `recipe.grid()` says.

    Batch-norm is a fixed map, and activations stay as they are. Returns the network with both folded
    into the weights, which are integers times a number per map.
    """
    net = trained.without_whitening().requires_grad_(True)
    for module in net.modules():
        if isinstance(module, (PolyActivation, nn.BatchNorm1d, nn.BatchNorm2d)):
            module.requires_grad_(False)
    net.frozen = True
    clip_to_grid(net, recipe.grid())
    average = copy.deepcopy(net).requires_grad_(False)
    checkpoint = checkpoint and grid_checkpoint(checkpoint)
    passes(recipe, net, average, train, held_out, teachers, log, checkpoint, grid=True)
    average.eval()
    return folded(average, recipe.grid())


def passes(recipe, net, average, train, held_out, teachers, log, checkpoint, grid=False):
    """Trains `net` and keeps the moving average of its weights.

    These are all passes of the recipe, or with `grid` those of its last phase.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    epochs = recipe.grid_epochs if grid else recipe.epochs
    steps = len(train) // recipe.batch
    optimizer, schedule = optimizer_of(net, recipe, steps * epochs, grid)
    parameters = [p for p in net.parameters() if p.requires_grad]
    state = Checkpoint(checkpoint, recipe, generator, net=net, average=average, optimizer=optimizer,
                       schedule=schedule)
    done = state.load()
    if done:
        log(f"goes on after {done} passes, from {checkpoint}")
    loss_function = loss_of
    if recipe.compile:
        loss_function, teachers = torch.compile(loss_of), [torch.compile(teacher) for teacher in teachers]
    blend = 0 if grid else round(recipe.blend_epochs * steps)
    mirrored = torch.rand(len(train), generator=torch.Generator().manual_seed(recipe.seed)) < 0.5
    for epoch in range(done, epochs):
        start = time.time()
        net.train()
        total = torch.zeros(())
        crop = recipe.crop if epoch < recipe.crop_epochs and not grid else 0
        order = torch.randperm(len(train), generator=generator)[: steps * recipe.batch]
        for step, index in enumerate(order.split(recipe.batch), epoch * steps):
            net.share = torch.tensor(step / blend) if step < blend else None
            images = augmentation.augment(train.images[index], recipe, generator, mirrored[index] ^ bool(epoch % 2),
                                          crop)
            targets = train.labels[index]
            if recipe.cutmix:
                images, targets = augmentation.mix(images, F.one_hot(targets, data.CLASSES).float(), recipe.cutmix,
                                                   generator)
            if recipe.noise:
                images = images + recipe.noise * torch.randn(images.shape, generator=generator)
            soft = soft_targets(recipe, teachers, images)
            loss, plain = loss_function(net, recipe, images, targets, soft, grid)
            optimizer.zero_grad()
            loss.backward()
            if not isinstance(optimizer, Muon):  # its steps do not depend on the size of gradients
                nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            total += plain.detach()
            with torch.no_grad():
                for a, p in zip(average.parameters(), net.parameters()):
                    a.lerp_(p, 1 - recipe.ema)
        state.save(epoch + 1)
        kind = "epoch on the grid" if grid else "epoch"
        line = f"{kind} {epoch + 1}: loss {total / steps:.4f}, {time.time() - start:.0f} s"
        if held_out is not None and (epoch % 5 == 4 or epoch + 1 == epochs):
            if grid:
                measured = folded(average.eval(), recipe.grid())
            else:
                set_statistics(average, train.images[:10000], recipe.exact_statistics)
                measured = average
            line += f", held out {correct(measured, held_out)} of {len(held_out)}"
        log(line)


@torch.no_grad()
def clip_to_grid(net, bits):
    """Clips the weights of every map where the mean squared error of rounding is least."""
    for stage in net.stages:
        for index, names in enumerate(stage.parts):
            if not isinstance(net.architecture[names[0]], (Conv, Dense)):
                continue
            weight = getattr(net, names[0]).weight
            gain = net.gain(stage) if index + 1 == len(stage.parts) else torch.ones(1)
            scaled = weight * gain.view(-1, *[1] * (weight.dim() - 1))
            largest = float(scaled.abs().max())

            def loss(limit):
                clipped = scaled.clamp(-limit, limit)
                return float((clipped + rounding(bits)(clipped, names[0]) - scaled).square().sum())

            limit = min((largest * k / 40 for k in range(10, 41)), key=loss)
            weight.copy_(scaled.clamp(-limit, limit) / gain.view(-1, *[1] * (weight.dim() - 1)))


@torch.no_grad()
def soft_targets(recipe, teachers, images):
    if not teachers:
        return None
    logits = sum(teacher(images)[0] for teacher in teachers) / len(teachers)
    return F.softmax(logits / recipe.temperature, 1)


@torch.no_grad()
def set_statistics(net, images, exact=True):
    """Batch-norm statistics of un-augmented images; leaves the network in evaluation mode.

    They are exact, stage after stage, if asked for. In a graph, and if not, they are the means over
    batches in which every batch-norm uses its own.
    """
    net.eval()
    if net.stages is None or not exact:
        norms = [module for module in net.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
        momentum = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for x in images.split(500):
            net.predict(x)
        for norm, before in zip(norms, momentum):
            norm.momentum = before
        net.eval()
        return
    dtype = net.dtype
    for index, stage in enumerate(net.stages):
        if stage.norm:
            # The first stage in f64; convolutions of more channels have no fast f64 form, and only their sums are in f64.
            net.dtype = torch.float64 if index == 0 else torch.float32
            total = square = count = 0
            for x in images.split(5000 if index == 0 else 250):
                z = net.before_norm(x.to(net.dtype), index).double()
                total, square, count = total + z.sum(0), square + z.square().sum(0), count + len(z)
            mean = total / count
            norm = getattr(net, stage.norm)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(square / count - mean * mean)
    net.dtype = dtype


@torch.no_grad()
def correct(net, split):
    """Images of the split that the network as published labels correctly."""
    net.eval()
    pairs = zip(split.images.split(500), split.labels.split(500))
    return sum(int((net.predict(x).argmax(1) == y).sum()) for x, y in pairs)
