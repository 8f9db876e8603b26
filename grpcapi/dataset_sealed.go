package grpcapi

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/compress"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/pack"
)

// sendSealed sends a range of a file, frames as they are stored where that is shorter. What
// is small is sent as plain bytes.
func (d *datasets) sendSealed(ctx context.Context, ss grpc.ServerStream, o store.Object, r store.Range) error {
	if r.To-r.From <= smallRead {
		return d.sendFile(ctx, ss, o, r, getDataField)
	}
	if err := d.reserve(ctx, streamBytes); err != nil {
		return err
	}
	w := &sealedWriter{piece: pieceWriter{field: getDataField, to: accountOf(ctx)}}
	return pump(ctx, ss, d.reads.large, func(ctx context.Context, push func(*encoded) error) error {
		w.piece.push = push
		if err := d.store.GetSealed(ctx, o, store.Range{From: r.From + w.given, To: r.To}, w.run.loc, w); err != nil {
			return letGo(err)
		}
		return w.piece.flush()
	})
}

// A sealedWriter turns a file into messages of plain bytes and of frames. It knows where it
// is, so that the file can be left, in a frame too, and gone on with.
type sealedWriter struct {
	piece pieceWriter
	given uint64   // bytes of the file that were taken
	run   frameRun // that is under way with its frame, or zero
	sent  int      // of the frame's sealed form
}

// A frameRun tells one run of a file from others.
type frameRun struct {
	loc        pack.Loc
	start, end uint32
}

var _ store.SealedWriter = (*sealedWriter)(nil)

// errMoved: while the place in the engine was given up in the middle of a frame, the chunks
// were stored anew elsewhere. The caller goes on with what comes behind what it has.
var errMoved = busy("the data was moved while it was read")

// Write implements store.SealedWriter.
func (w *sealedWriter) Write(p []byte) (int, error) {
	if w.run != (frameRun{}) {
		return 0, errMoved
	}
	n, err := w.piece.Write(p)
	w.given += uint64(n)
	return n, err
}

// Sealed implements store.SealedWriter.
func (w *sealedWriter) Sealed(r *store.SealedRun) error {
	run := frameRun{r.Loc, r.Start, r.End}
	switch w.run {
	case frameRun{}:
		if err := w.piece.flush(); err != nil {
			return err
		}
		if len(r.Frame.Chunks) == 0 {
			w.given += uint64(r.End - r.Start)
			return w.head(&scalev1.FrameRange{Back: uint32(r.Back), Start: r.Start, End: r.End})
		}
		w.run, w.sent = run, 0
		if err := w.head(&scalev1.FrameRange{Frame: frameHead(&r.Frame), Start: r.Start, End: r.End}); err != nil {
			return err
		}
	case run:
	default:
		return errMoved
	}
	n, err := w.piece.Write(r.Frame.Sealed[w.sent:])
	w.sent += n
	if err != nil {
		return err
	}
	w.run = frameRun{}
	w.given += uint64(r.End - r.Start)
	return w.piece.flush()
}

// frameHead is a frame without its sealed form.
func frameHead(f *pack.Frame) *scalev1.Frame {
	m := &scalev1.Frame{
		Codec: scalev1.Codec_CODEC_RAW, PlainSize: f.PlainSize, SealedSize: uint32(len(f.Sealed)), Chunks: make([]*scalev1.Chunk, len(f.Chunks)),
	}
	if f.Codec == compress.Zstd {
		m.Codec = scalev1.Codec_CODEC_ZSTD
	}
	for i := range f.Chunks {
		m.Chunks[i] = &scalev1.Chunk{Digest: f.Chunks[i].Digest[:], Size: f.Chunks[i].Size}
	}
	return m
}

// head sends what says where bytes are. It is sent whatever push returns, as pieces are.
func (w *sealedWriter) head(r *scalev1.FrameRange) error {
	m := &scalev1.GetResponse{Frame: r}
	size := proto.Size(m) // less than a piece: the store gives no frames of very many chunks
	buf := answers.take(size)
	if _, err := (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(buf.all[:0], m); err != nil {
		return err
	}
	return w.piece.push(&encoded{mem.BufferSlice{w.piece.to.send(buf, size)}})
}
