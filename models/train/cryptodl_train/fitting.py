"""The training loop: one for every recipe."""

import copy
import time

import torch
import torch.nn.functional as F
from torch import nn

from . import augmentation
from .network import Network


def build(recipe):
    clamp = recipe.clamp and (recipe.range_centre - recipe.clamp, recipe.range_centre + recipe.clamp)
    return Network(recipe.architecture, recipe.activation, recipe.learned, clamp,
                   torch.bfloat16 if recipe.bfloat16 else torch.float32)


def step_of(weight, bits):
    """Step of the symmetric integers of that many bits whose largest is the largest weight."""
    return weight.detach().abs().max() / (2 ** (bits - 1) - 1)


def noise(bits):
    return lambda weight: (torch.rand_like(weight) - 0.5) * step_of(weight, bits)


def loss_of(net, recipe, images, labels, soft):
    logits, inputs = net(images, noise(recipe.weight_bits) if recipe.weight_bits else None)
    loss = plain = F.cross_entropy(logits, labels)
    if soft is not None:
        t = recipe.temperature
        divergence = F.kl_div(F.log_softmax(logits / t, 1), soft, reduction="batchmean") * t * t
        loss = (1 - recipe.distillation) * loss + recipe.distillation * divergence
    if recipe.range_weight:
        for z in inputs:
            excess = F.relu((z - recipe.range_centre).abs() - recipe.range_limit)
            loss = loss + recipe.range_weight * excess.square().sum() / len(labels)
    return loss, plain


def fit(recipe, train, held_out=None, teachers=(), log=print):
    """The trained network in evaluation mode: the moving average of the weights, with exact batch-norm statistics.

    `held_out` is only reported on. Everything random comes from the recipe's seed.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    net = build(recipe)
    average = copy.deepcopy(net).requires_grad_(False)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
         {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}],
        lr=recipe.learning_rate)
    steps = len(train) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps * recipe.epochs, pct_start=0.15)
    loss_function = loss_of
    if recipe.compile:
        loss_function, teachers = torch.compile(loss_of), [torch.compile(teacher) for teacher in teachers]
    start = time.time()
    for epoch in range(recipe.epochs):
        net.train()
        total = torch.zeros(())
        order = torch.randperm(len(train), generator=generator)[: steps * recipe.batch]
        for index in order.split(recipe.batch):
            images = train.images[index]
            if recipe.mirror:
                images = augmentation.flip(images, generator)
            images = augmentation.deform(images, recipe.deformation, generator)
            loss, plain = loss_function(net, recipe, images, train.labels[index], soft_targets(recipe, teachers, images))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            total += plain.detach()
            with torch.no_grad():
                for a, p in zip(average.parameters(), net.parameters()):
                    a.lerp_(p, 1 - recipe.ema)
        line = f"epoch {epoch + 1}: loss {total / steps:.4f}, {time.time() - start:.0f} s"
        if held_out is not None and (epoch % 5 == 4 or epoch + 1 == recipe.epochs):
            set_statistics(average, train.images[:10000])
            line += f", held out {correct(average, held_out)} of {len(held_out)}"
        log(line)
    set_statistics(average, train.images)
    return average


@torch.no_grad()
def soft_targets(recipe, teachers, images):
    if not teachers:
        return None
    logits = sum(teacher(images)[0] for teacher in teachers) / len(teachers)
    return F.softmax(logits / recipe.temperature, 1)


@torch.no_grad()
def set_statistics(net, images):
    """Batch-norm statistics of un-augmented images; leaves the network in evaluation mode.

    They are exact, stage after stage. In a graph they are the means over batches in which every batch-norm uses its own.
    """
    net.eval()
    if net.stages is None:
        norms = [module for module in net.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
        momentum = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for x in images.split(1000):
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
def correct(net, data):
    """Images of the split that the network as published labels correctly."""
    net.eval()
    pairs = zip(data.images.split(1000), data.labels.split(1000))
    return sum(int((net.predict(x).argmax(1) == y).sum()) for x, y in pairs)
