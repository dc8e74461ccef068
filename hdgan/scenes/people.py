"""People and poles: drawings in an upright plane, rounded by light from the side."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from hdgan.scenes.canvas import Canvas, Place, Stencil
from hdgan.scenes.layout import Person, Pole
from hdgan.scenes.light import Light
from hdgan.scenes.styles import RGB, Look, linear
from hdgan.scenes.texture import noise

_SKIN, _HAIR, _COAT, _TROUSERS, _SHOES, _BAG = range(1, 7)
_SKINS = ((236, 188, 156), (214, 160, 124), (156, 106, 76), (98, 66, 50))
_HAIRS = ((40, 32, 28), (92, 62, 40), (176, 140, 88), (150, 148, 146), (22, 20, 20))


def paint_person(canvas: Canvas, light: Light, person: Person, id: int, look: Look) -> None:
    """Paint a walking person in the pixels that are still free."""
    tall = person.height
    reach = [(person.x + i * 0.5 * tall, y, person.z) for i in (-1, 1) for y in (0.0, tall * 1.02)]
    stencil = Stencil(canvas, reach)
    if stencil.hidden:
        return
    unit = tall * canvas.unit / person.z  # pixels that the person is tall
    foot = canvas.project((person.x, 0.0, person.z))
    _figure(stencil, person, foot, unit)
    colours = {
        _SKIN: _SKINS[int(person.skin * len(_SKINS))],
        _HAIR: _HAIRS[int(person.hair * len(_HAIRS))],
        _COAT: look.colour,
        _TROUSERS: look.style.accent,
        _SHOES: (38, 32, 30),
        _BAG: (84, 58, 42),
    }
    _paint_upright(canvas, light, stencil, colours, person, id, look.seed)


def _figure(stencil: Stencil, person: Person, foot: Place, unit: float) -> None:
    """Draw body parts; coordinates are shares of the height, x to the right and y up from between the feet."""
    sideways = person.facing in (-1, 1)
    turn = person.facing if sideways else 1
    swing = 0.13 * person.stride if sideways else 0.035 * person.stride
    shoulder = 0.07 if sideways else 0.115

    def at(x: float, y: float) -> Place:
        return foot[0] + turn * x * unit, foot[1] - y * unit

    def limb(points: list[tuple[float, float]], radius: float, part: int) -> None:
        stencil.limb([at(x, y) for x, y in points], radius * unit, part)

    hips = 0.02 if sideways else 0.045
    for leg in (-1, 1):
        step, lift = leg * swing, 0.03 * max(0.0, leg * person.stride)
        knee = (leg * hips + 0.6 * step + (0.02 if sideways else 0), 0.27 + lift)
        ankle = (leg * hips + step - (0.05 * (lift > 0) if sideways else 0), 0.04 + lift)
        limb([ankle, (ankle[0] + (0.045 if sideways else leg * 0.008), 0.022 + lift)], 0.022, _SHOES)
        limb([(leg * hips * 0.8, 0.5), knee], 0.045, _TROUSERS)
        limb([knee, ankle], 0.033, _TROUSERS)
    for arm in (-1, 1):
        reach = -arm * swing * 0.9
        x = arm * shoulder * (0.25 if sideways else 1)
        elbow = (x + reach * 0.5 + (0 if sideways else arm * 0.025), 0.63)
        hand = (x + reach * 1.3 + (0.02 if sideways else arm * 0.015), 0.48)
        limb([elbow, hand], 0.021, _SKIN)
        limb([(x, 0.79), elbow, (elbow[0] * 0.35 + hand[0] * 0.65, 0.63 * 0.35 + 0.48 * 0.65)], 0.03, _COAT)
    hem, flare = person.coat, 0.1 + 0.25 * (0.47 - person.coat)
    half = shoulder
    torso = [(-0.03, 0.855), (-half, 0.81), (-half * 0.82, 0.62), (-flare, hem)]
    outline = [at(x, y) for x, y in torso] + [at(-x, y) for x, y in reversed(torso)]
    stencil.polygon(outline, _COAT)
    limb([(-half * 0.8, 0.8), (half * 0.8, 0.8)], 0.03, _COAT)
    if sideways and person.hair > 0.5:
        stencil.ellipse(at(-0.09, 0.6), 0.04 * unit, 0.06 * unit, _BAG)
    elif person.facing == 2 and person.hair > 0.6:
        stencil.polygon([at(-0.075, 0.8), at(0.075, 0.8), at(0.07, 0.6), at(-0.07, 0.6)], _BAG)
    limb([(0.0, 0.84), (0.005, 0.88)], 0.028, _SKIN)
    lean = 0.012 if sideways else 0.0
    stencil.ellipse(at(lean, 0.925), 0.046 * unit, 0.062 * unit, _HAIR if person.facing == 2 else _SKIN)
    if person.facing != 2:
        hair = at(lean - (0.018 if sideways else 0), 0.955)
        stencil.ellipse(hair, 0.05 * unit, 0.042 * unit, _HAIR)
        face = at(lean + (0.022 if sideways else 0), 0.912)
        stencil.ellipse(face, 0.034 * unit, 0.042 * unit, _SKIN)
        if person.skin > 0.5:
            stencil.ellipse(at(lean - (0.035 if sideways else 0.043), 0.9), 0.018 * unit, 0.05 * unit, _HAIR)


def paint_pole(canvas: Canvas, light: Light, pole: Pole, id: int, look: Look) -> None:
    """Paint a street lamp, a traffic sign or a traffic light in the pixels that are still free."""
    inward = -1.0 if pole.x > 0 else 1.0
    stencil = Stencil(canvas, [(pole.x + i * 1.8, y, pole.z) for i in (-1, 1) for y in (0.0, pole.height + 0.2)])
    if stencil.hidden:
        return
    unit = canvas.unit / pole.z

    def at(x: float, y: float) -> Place:
        return canvas.project((pole.x + inward * x, y, pole.z))

    def bar(points: list[tuple[float, float]], radius: float, part: int) -> None:
        stencil.limb([at(x, y) for x, y in points], radius * unit, part)

    bar([(0, 0), (0, 0.9)], 0.1, 1)
    bar([(0, 0), (0, pole.height - (0.5 if pole.kind == "lamp" else 0.0))], 0.06, 1)
    if pole.kind == "lamp":
        top = pole.height
        bar([(0, top - 0.5), (0.12, top - 0.18), (0.45, top - 0.02), (1.0, top)], 0.045, 1)
        stencil.polygon([at(0.8, top + 0.1), at(1.5, top + 0.04), at(1.5, top - 0.06), at(0.8, top - 0.08)], 1)
        stencil.polygon([at(0.88, top - 0.06), at(1.46, top - 0.05), at(1.4, top - 0.11), at(0.95, top - 0.12)], 2)
    elif pole.kind == "sign":
        centre = at(0, pole.height - 0.36)
        for radius, part in ((0.36, 3), (0.27, 2)):
            stencil.ellipse(centre, radius * unit, radius * unit, part)
    else:
        head = [at(x, y) for x, y in ((-0.17, 3.3), (0.17, 3.3), (0.17, 2.35), (-0.17, 2.35))]
        stencil.polygon(head, 4)
        for place, part in ((3.12, 5), (2.83, 6), (2.54, 7)):
            stencil.ellipse(at(0, place), 0.11 * unit, 0.11 * unit, part)
    shades = (look.colour, (240, 238, 226), (196, 30, 36), (26, 28, 30), (120, 28, 26), (110, 84, 30), (52, 220, 130))
    _paint_upright(canvas, light, stencil, dict(enumerate(shades, 1)), pole, id, look.seed)


def _paint_upright(
    canvas: Canvas, light: Light, stencil: Stencil, colours: dict[int, RGB], thing: Person | Pole, id: int, seed: int
) -> None:
    """Shade the parts of a flat drawing as if each were round; `colours` has that of each part."""
    x, z, tall = thing.x, thing.z, thing.height
    parts = stencil.parts()
    pixels, row, column = stencil.seen(parts)
    if not len(row):
        return
    table = np.zeros((3, 8), np.float32)
    for number, colour in colours.items():
        table[:, number] = linear(colour)
    unit = canvas.unit / z
    part = parts[row, column]
    # Where the blurred drawing grows to the right, the surface faces left: the limbs' edges turn away.
    soft = Image.fromarray((parts > 0).astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(max(0.8, 0.05 * unit)))
    blurred = np.asarray(soft, np.float32)
    slope = np.clip((np.roll(blurred, -1, 1) - np.roll(blurred, 1, 1)) * (unit * 0.0007), -1, 1)[row, column]
    sx, _, sz = light.sun
    lit = light.sunlit_at(x, 0.6 * tall, z)
    facing = np.clip(0.62 - 0.55 * slope * sx - 0.3 * sz, 0.06, 1.1) * lit
    y = np.clip(canvas.camera.y - z * pixels.b, 0, tall)
    ambient = (0.62 + 0.3 * np.minimum(y / tall, 1)) * (1 - 0.28 * np.abs(slope))
    folds = 1 + 0.11 * noise("clump", pixels.a * z, y * 0.5, 2.6, seed)
    canvas.paint(pixels, id, light.shade(table[:, part] * folds, facing, ambient, z))
