// Package heap stands in for KWOK's own, whose queues it keeps in order.
//
// In KWOK 0.8.0 an item that is pushed while it is in the heap is in it twice, and Remove takes
// the newer of the two. The older one then stays at the top, cannot be removed, and all that lies
// below it waits for ever: a node that is deleted and made again at the wrong moment ends the
// heartbeats of all nodes. Here an item that is pushed again moves.
package heap

import (
	"cmp"
	"container/heap"
)

// Heap holds each item once, the one with the smallest key at the top.
type Heap[K cmp.Ordered, T comparable] struct {
	ordered order[K, T]
	places  map[T]*place[K, T]
}

type place[K cmp.Ordered, T comparable] struct {
	key  K
	item T
	at   int
}

// NewHeap returns an empty heap.
func NewHeap[K cmp.Ordered, T comparable]() *Heap[K, T] {
	return &Heap[K, T]{places: map[T]*place[K, T]{}}
}

// Push adds an item, or gives one that is there another key.
func (h *Heap[K, T]) Push(key K, item T) {
	if known, ok := h.places[item]; ok {
		known.key = key
		heap.Fix(&h.ordered, known.at)
		return
	}
	fresh := &place[K, T]{key: key, item: item}
	h.places[item] = fresh
	heap.Push(&h.ordered, fresh)
}

// Peek returns the item with the smallest key.
func (h *Heap[K, T]) Peek() (key K, item T, ok bool) {
	if len(h.ordered) == 0 {
		return key, item, false
	}
	top := h.ordered[0]
	return top.key, top.item, true
}

// Pop takes the item with the smallest key out.
func (h *Heap[K, T]) Pop() (key K, item T, ok bool) {
	key, item, ok = h.Peek()
	if ok {
		h.Remove(item)
	}
	return key, item, ok
}

// Remove takes an item out and says whether it was there.
func (h *Heap[K, T]) Remove(item T) bool {
	known, ok := h.places[item]
	if ok {
		heap.Remove(&h.ordered, known.at)
		delete(h.places, item)
	}
	return ok
}

// Len returns how many items there are.
func (h *Heap[K, T]) Len() int {
	return len(h.ordered)
}

type order[K cmp.Ordered, T comparable] []*place[K, T]

func (o order[K, T]) Len() int           { return len(o) }
func (o order[K, T]) Less(i, j int) bool { return cmp.Less(o[i].key, o[j].key) }

func (o order[K, T]) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].at, o[j].at = i, j
}

func (o *order[K, T]) Push(x any) {
	fresh := x.(*place[K, T])
	fresh.at = len(*o)
	*o = append(*o, fresh)
}

func (o *order[K, T]) Pop() any {
	last := len(*o) - 1
	gone := (*o)[last]
	*o = (*o)[:last]
	return gone
}
