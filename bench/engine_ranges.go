package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/pack"
)

// A rangesResult is of reading ranges of rangeSize bytes at uniform offsets of one file,
// one after the other, from a warm page cache.
type rangesResult struct {
	Workload string  `json:"workload"`
	Size     int64   `json:"size_bytes"`
	Frame    int64   `json:"frame_bytes"` // plain bytes that are compressed together
	Cache    int64   `json:"cache_bytes"` // bound of the decoded frames that the engine keeps
	Count    int     `json:"count"`
	Took     latency `json:"took"`
	// Hits is the part of the ranges for which nothing had to be read of the packs, Frames how
	// many frames were read and decoded for a range, on average. Of frames that are stored as
	// they are the range alone is read.
	Hits   float64 `json:"hit_rate"`
	Frames float64 `json:"frames_read_for_a_range"`
	Peak   int64   `json:"peak_bytes"` // of the process, its own checks included
}

const (
	rangeSize = 64 << 10
	// overCache is how many times as large as the cache the file is at least.
	overCache = 8
)

// rangeFrames are the frame sizes that ranges are measured with: the default, and that for
// those who read little at a time.
var rangeFrames = []int64{compress.MaxPlain, 512 << 10}

func (b *surroundings) ranges(ctx context.Context, r *engineReport) error {
	for _, frame := range rangeFrames {
		if err := b.rangesOf(ctx, frame, r); err != nil {
			return err
		}
	}
	return nil
}

// rangesOf measures with frames of that size.
func (b *surroundings) rangesOf(ctx context.Context, frame int64, r *engineReport) error {
	count := 300
	if b.full {
		count = 10_000
	}
	names := []string{"source", "lines", "random"}
	dir, err := b.newStoreOf(ctx, "ranges", []string{"--frame-size", strconv.FormatInt(frame, 10)}, names...)
	if err != nil {
		return err
	}
	for _, name := range names {
		w := b.workloads[name]
		if err := errors.Join(settle(dir), settle(w.path)); err != nil {
			return err
		}
		// The engine's default of 32 MiB, or as much less as the data is.
		res := rangesResult{Cache: min(32<<20, w.size/overCache)}
		req := jobRequest{Kind: "ranges", Store: dir, Ref: name, File: w.path, Count: count, Seed: 11, Cache: res.Cache}
		if err := b.ask(ctx, req, &res); err != nil {
			return err
		}
		res.Workload, res.Size, res.Frame = name, w.size, frame
		r.Ranges = append(r.Ranges, res)
	}
	return os.RemoveAll(dir)
}

// countedPacks counts the reads of packs, and the frames that were read whole.
type countedPacks struct {
	pack.Store
	reads, frames *atomic.Int64
}

func (p countedPacks) ReadFrame(ctx context.Context, loc pack.Loc, buf []byte) (pack.Frame, []byte, error) {
	p.reads.Add(1)
	p.frames.Add(1)
	return p.Store.ReadFrame(ctx, loc, buf)
}

func (p countedPacks) ReadPart(ctx context.Context, loc pack.Loc, from, to uint32, buf []byte) (pack.Frame, bool, []byte, error) {
	p.reads.Add(1)
	f, part, buf, err := p.Store.ReadPart(ctx, loc, from, to, buf)
	if !part {
		p.frames.Add(1)
	}
	return f, part, buf, err
}

// readRanges reads ranges of a file in a store, and compares them with the file.
func readRanges(ctx context.Context, req jobRequest) (*rangesResult, error) {
	f, err := os.Open(req.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < rangeSize {
		return nil, fmt.Errorf("%s is smaller than a range", req.File)
	}
	var reads, frames atomic.Int64
	opt := store.Options{Cache: req.Cache, WrapPacks: func(p pack.Store) pack.Store { return countedPacks{p, &reads, &frames} }}
	res := &rangesResult{Cache: req.Cache, Count: req.Count}
	err = withStore(ctx, req.Store, opt, func(s *store.Store) error {
		o, err := s.Resolve(ctx, req.Ref)
		if err != nil {
			return err
		}
		random := rand.New(chacha(req.Seed))
		got, want := bytes.NewBuffer(make([]byte, 0, rangeSize)), make([]byte, rangeSize)
		took, hits := make([]time.Duration, req.Count), 0
		frames.Store(0)
		for i := range took {
			from := random.Int64N(info.Size() - rangeSize + 1)
			got.Reset()
			before := reads.Load()
			start := time.Now()
			_, err := s.Get(ctx, o, &store.Range{From: uint64(from), To: uint64(from) + rangeSize}, got)
			took[i] = time.Since(start)
			if err != nil {
				return err
			}
			if reads.Load() == before {
				hits++
			}
			if _, err := f.ReadAt(want, from); err != nil {
				return err
			}
			if !bytes.Equal(got.Bytes(), want) {
				return fmt.Errorf("the range at %d of %s is something else", from, req.Ref)
			}
		}
		res.Took = latencyOf(took)
		res.Hits = float64(hits) / float64(req.Count)
		res.Frames = float64(frames.Load()) / float64(req.Count)
		return nil
	})
	if err != nil {
		return nil, err
	}
	res.Peak, err = peakOf("self")
	return res, err
}
