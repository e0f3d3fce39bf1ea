"""Pairs of predicted pixels and annotators' marks of one image, and their counts.

Of all largest one-to-one pairings within the radius, the BSDS code seeks one of least total
distance. From one threshold to the next a few pixels come and go, so that here each annotator's
pairing is kept, and each of these pixels mends it along one shortest path. Source: the Hungarian
method as in Jonker and Volgenant 1987, with pixels that also leave.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tasks.metrics._edge_ridges import Floats, Ints, Mask, PixelGraph, compiled, suppress

HUNDREDTHS = 100
NOBODY = -1
TIE_BITS, INTEGER_BITS = 14, 60


class Network(NamedTuple):
    """Pixels and marks as the nodes 0 … N - 1, pixels first, and a pairing of them.

    Node i may be paired with ``ends[k]`` at ``costs[k]``, k from ``starts[i]`` to
    ``starts[i + 1] - 1``; alone it costs ``single[i]``. ``mate`` is its partner or -1. ``price``
    proves that the pairing of the ``alive`` nodes is the cheapest: nowhere above ``single``, in
    sum nowhere above the cost of a pair, and equal to both where it stands alone or paired.

    The rest is for a search: ``distance`` and ``previous`` of the nodes that search ``search[i]``
    has reached, the nodes ``done``, in order, and a heap of distances and nodes.
    """

    starts: Ints
    ends: NDArray[np.int32]
    costs: Ints
    single: Ints
    mate: NDArray[np.int32]
    price: Ints
    alive: Mask
    distance: Ints
    previous: NDArray[np.int32]
    search: Ints
    done: NDArray[np.int32]
    heap_distances: Ints
    heap_nodes: NDArray[np.int32]


@compiled
def _push(distances: Ints, nodes: NDArray[np.int32], size: int, distance: int, node: int) -> int:
    """Add to the heap of ``size`` entries; its new size."""
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if distances[parent] <= distance:
            break
        distances[at], nodes[at] = distances[parent], nodes[parent]
        at = parent
    distances[at], nodes[at] = distance, node
    return size + 1


@compiled
def _pop(distances: Ints, nodes: NDArray[np.int32], size: int) -> int:
    """Remove the least entry, the first, from the heap; its new size."""
    size -= 1
    distance, node = distances[size], nodes[size]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and distances[child + 1] < distances[child]:
            child += 1
        if distances[child] >= distance:
            break
        distances[at], nodes[at] = distances[child], nodes[child]
        at = child
    distances[at], nodes[at] = distance, node
    return size


@compiled
def _settle(net: Network, root: int, search: int) -> None:
    """Pair ``root``, which stands alone below its cost of standing alone, or leave it alone.

    Dijkstra's algorithm over alternating paths, in costs less prices. A path ends in a node without
    a partner, in one that loses its partner and stands alone, or in ``root`` itself.
    """
    single, mate, price = net.single, net.mate, net.price
    shortest, last = single[root] - price[root], root
    size = count = 0
    node, so_far = root, np.int64(0)
    while True:
        for k in range(net.starts[node], net.starts[node + 1]):
            other = net.ends[k]
            length = so_far + net.costs[k] - price[node] - price[other]
            if (
                net.alive[other]
                and length < shortest
                and (net.search[other] != search or length < net.distance[other])
            ):
                net.search[other], net.distance[other] = search, length
                net.previous[other] = node
                size = _push(net.heap_distances, net.heap_nodes, size, length, other)
        # an entry is out of date where its node was reached by a shorter path later
        while size > 0 and net.heap_distances[0] > net.distance[net.heap_nodes[0]]:
            size = _pop(net.heap_distances, net.heap_nodes, size)
        if size == 0 or net.heap_distances[0] >= shortest:
            break
        so_far, other = net.heap_distances[0], net.heap_nodes[0]
        size = _pop(net.heap_distances, net.heap_nodes, size)
        node = mate[other]
        if node == NOBODY:
            shortest, last = so_far, other
            break
        net.done[count] = other
        count += 1
        left_alone = so_far + single[node] - price[node]
        if left_alone < shortest:
            shortest, last = left_alone, node
    price[root] += shortest
    for other in net.done[:count]:
        change = shortest - net.distance[other]
        if change > 0:
            price[other] -= change
            price[mate[other]] += change
    if last == root:
        return
    other = last
    if mate[last] != NOBODY:
        other = mate[last]
        mate[last] = NOBODY
    node = NOBODY
    while node != root:
        node = net.previous[other]
        following = mate[node]
        mate[node], mate[other] = other, node
        other = following


@compiled
def _mend(net: Network, gone: Ints, fresh: Ints, searches: int) -> None:
    """Take the pixels ``gone`` out of the pairing, then the pixels ``fresh`` in."""
    for pixel in gone:
        net.alive[pixel] = False
        mark = net.mate[pixel]
        if mark != NOBODY:
            net.mate[pixel] = net.mate[mark] = NOBODY
            searches += 1
            _settle(net, mark, searches)
    for pixel in fresh:
        net.alive[pixel] = True
        lowest = net.single[pixel]
        for k in range(net.starts[pixel], net.starts[pixel + 1]):
            lowest = min(lowest, net.costs[k] - net.price[net.ends[k]])
        net.price[pixel] = lowest
        searches += 1
        _settle(net, pixel, searches)


class Pairing:
    """A largest pairing of least total distance: some pixels of a graph, one annotator's marks.

    Distances are rounded to hundredths of a pixel, as in the BSDS code. Of pairings of equal
    distance, which are many on a grid, one is chosen by numbers that depend on the places of its
    pixels and marks, so that the matched pixels do not depend on the thresholds before.
    """

    def __init__(self, reach: float, graph: PixelGraph, marks: Mask) -> None:
        """No pixel is in the pairing yet. ``marks`` is (H, W), ``reach`` in pixels."""
        places = np.stack([graph.rows, graph.columns], axis=1)
        marked = np.argwhere(marks)
        self.total = len(marked)
        near = cKDTree(places).sparse_distance_matrix(cKDTree(marked), reach, output_type="ndarray")
        seen = np.zeros(graph.count, dtype=bool)
        seen[near["i"]] = True
        self.pixels = np.flatnonzero(seen)
        pixel = np.cumsum(seen)[near["i"]] - 1
        count = len(self.pixels)
        pairs = min(count, self.total)
        longest = math.ceil(HUNDREDTHS * reach)
        # `pairs` ties must weigh less than a hundredth, and `pairs` pairs less than one pixel more
        spare = INTEGER_BITS - longest.bit_length() - 2 * pairs.bit_length()
        ties = max(0, min(TIE_BITS, spare))
        shift = ties + pairs.bit_length() if ties else 0
        costs = np.rint(HUNDREDTHS * near["v"]).astype(np.int64) << shift
        costs += _mixed(places[near["i"]], marked[near["j"]], marks.shape[1], ties)
        tails = np.concatenate([pixel, count + near["j"]])
        nodes = count + self.total
        order = np.argsort(tails, kind="stable")
        single = np.zeros(nodes, dtype=np.int64)
        single[:count] = (pairs + 1) * ((longest + 1) << shift)
        self.network = Network(
            starts=np.searchsorted(tails[order], np.arange(nodes + 1)),
            ends=np.concatenate([count + near["j"], pixel])[order].astype(np.int32),
            costs=np.concatenate([costs, costs])[order],
            single=single,
            mate=np.full(nodes, NOBODY, dtype=np.int32),
            price=np.zeros(nodes, dtype=np.int64),
            alive=np.arange(nodes) >= count,
            distance=np.zeros(nodes, dtype=np.int64),
            previous=np.zeros(nodes, dtype=np.int32),
            search=np.zeros(nodes, dtype=np.int64),
            done=np.zeros(nodes, dtype=np.int32),
            heap_distances=np.zeros(len(tails), dtype=np.int64),
            heap_nodes=np.zeros(len(tails), dtype=np.int32),
        )
        self._searches = 0

    def match(self, alive: Mask) -> Ints:
        """The matched ones of the ``alive`` [N] pixels of the graph, as their numbers."""
        count = len(self.pixels)
        now, before = alive[self.pixels], self.network.alive[:count]
        gone, fresh = np.flatnonzero(before & ~now), np.flatnonzero(now & ~before)
        _mend(self.network, gone, fresh, self._searches)
        self._searches += len(gone) + len(fresh)
        matched: Ints = self.pixels[self.network.mate[:count] != NOBODY]
        return matched


def _mixed(pixels: Ints, marks: Ints, width: int, bits: int) -> Ints:
    """A number of ``bits`` bits for each pair of places, [P, 2] each, that looks random."""
    odd = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xBF58476D1CE4E5B9], dtype=np.uint64)
    row = np.array([width, 1])
    mixed = (pixels @ row).astype(np.uint64) * odd[0] ^ (marks @ row).astype(np.uint64) * odd[1]
    mixed ^= mixed >> np.uint64(29)
    mixed *= odd[2]
    numbers: Ints = (mixed >> np.uint64(64 - TIE_BITS)).astype(np.int64) >> (TIE_BITS - bits)
    return numbers


def boundary_counts(ridges: Floats, marks: Mask, thresholds: Floats, tolerance: float) -> Ints:
    """Counts [T, 4] of one image at each of the rising ``thresholds`` [T].

    ``ridges`` (H, W) are as ``suppress`` leaves them, ``marks`` [A, H, W] are of one annotator or
    more. A row holds: marks matched and marks, both summed over annotators; pixels matched to any
    annotator and pixels, of the thinned ridges. The distance of a pair is at most ``tolerance``
    times the diagonal. Source: Martin et al. 2004, Arbeláez et al. 2011 (BSDS).
    """
    graph = PixelGraph(ridges >= thresholds[0])
    values = ridges[graph.rows, graph.columns]
    reach = tolerance * math.hypot(*ridges.shape)
    annotators = [Pairing(reach, graph, each) for each in marks]
    total = sum(each.total for each in annotators)
    result = np.zeros((len(thresholds), 4), dtype=np.int64)
    result[:, 1] = total
    codes, above = graph.codes(), np.zeros(graph.count, dtype=bool)
    for step in reversed(range(len(thresholds))):
        fresh = np.flatnonzero(~above & (values >= thresholds[step]))
        if fresh.size == 0:
            result[step] = result[min(step + 1, len(thresholds) - 1)]
            continue
        above[fresh] = True
        graph.flip(codes, fresh)
        alive = above.copy()
        graph.thin(alive, codes.copy())
        recalled, hit = 0, np.zeros(graph.count, dtype=bool)
        for each in annotators:
            matched = each.match(alive)
            recalled += len(matched)
            hit[matched] = True
        result[step] = recalled, total, np.count_nonzero(hit), np.count_nonzero(alive)
    return result


def score_boundaries(
    p: Floats, marks: Mask, ignored: Mask, thresholds: Floats, tolerance: float
) -> Ints:
    """``boundary_counts`` of a map (H, W) of probabilities; nothing is predicted where ignored."""
    return boundary_counts(np.where(ignored, 0, suppress(p)), marks, thresholds, tolerance)
