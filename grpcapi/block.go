package grpcapi

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/pack"
)

type blocks struct {
	scalev1.UnimplementedBlockServiceServer
	*Server
	// sealed bounds the frames of all uploads that have not arrived whole, in bytes.
	sealed *semaphore.Weighted
}

// uploadBytes is what frames that arrive in several messages may take together.
const uploadBytes = 48 << 20

// maxFrameChunks bounds the chunks of a frame, as the API has it.
const maxFrameChunks = 4096

// FindMissing implements BlockServiceServer.
func (b *blocks) FindMissing(ctx context.Context, req *scalev1.FindMissingRequest) (*scalev1.FindMissingResponse, error) {
	n := len(req.GetDigests())
	if n < 1 || n > maxFindDigests {
		return nil, invalidf("digests", "%d of them, must be 1 to %d", n, maxFindDigests)
	}
	digests := make([]dag.Digest, n)
	for i, d := range req.GetDigests() {
		if len(d) != len(digests[i]) {
			return nil, invalidf(fmt.Sprintf("digests[%d]", i), "%d bytes, a digest has %d", len(d), len(digests[i]))
		}
		digests[i] = dag.Digest(d)
	}
	missing, err := b.store.Missing(ctx, digests)
	if err != nil {
		return nil, err
	}
	resp := &scalev1.FindMissingResponse{}
	for _, i := range missing {
		resp.Missing = append(resp.Missing, uint32(i))
	}
	return resp, nil
}

// Upload implements BlockServiceServer.
func (b *blocks) Upload(ss grpc.ClientStreamingServer[scalev1.UploadRequest, scalev1.UploadResponse]) error {
	ctx := ss.Context()
	u := b.store.NewUpload()
	resp := &scalev1.UploadResponse{}
	var err error
	for n := 0; ; n++ {
		var more bool
		if more, err = b.frame(ctx, ss, u, resp); err != nil || !more {
			if err != nil {
				err = fmt.Errorf("frame %d: %w", n, err)
			}
			break
		}
	}
	// What came before a frame that is refused stays; it is made durable all the same.
	if ferr := u.Finish(ctx); err == nil {
		err = ferr
	}
	if err != nil {
		return err
	}
	resp.NewBytes, resp.StoredBytes = u.Added()
	return ss.SendAndClose(resp)
}

// frame receives one frame and stores it. It reports false at the end of the upload.
func (b *blocks) frame(ctx context.Context, ss grpc.ServerStream, u *store.Upload, resp *scalev1.UploadResponse) (bool, error) {
	var m uploadMessage
	if err := ss.RecvMsg(&m); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	defer m.free()
	if !m.begins {
		return false, invalidf("frame", "data that belongs to no frame")
	}
	if n := len(m.data); n > b.lim.PieceBytes {
		return false, inField("frame.data", fmt.Errorf("%w: a piece of %d bytes, must be at most %d", ErrLimit, n, b.lim.PieceBytes))
	}
	f := m.frame
	size := int(m.sealedSize)
	switch {
	case m.sealedSize < 1 || m.sealedSize > compress.MaxPlain:
		return false, invalidf("frame.sealed_size", "%d, must be 1 to %d", m.sealedSize, compress.MaxPlain)
	case len(m.data) > size:
		return false, invalidf("frame.data", "%d bytes of %d", len(m.data), size)
	case len(m.data) == size:
		f.Sealed = m.data
		return true, addFrame(ctx, u, f, resp)
	}
	if err := b.sealed.Acquire(ctx, int64(size)); err != nil {
		return false, context.Cause(ctx)
	}
	defer b.sealed.Release(int64(size))
	buf := sealedPool.Get(size)
	defer sealedPool.Put(buf)
	n := copy(*buf, m.data)
	m.free() // the chunks are copied
	for n < size {
		more := uploadMessage{into: (*buf)[n:]}
		if err := ss.RecvMsg(&more); err == io.EOF {
			return false, invalidf("data", "the upload ends with %d bytes of a frame of %d", n, size)
		} else if err != nil {
			return false, err
		}
		got := len(more.data)
		switch {
		case more.taken > 0 && more.taken <= b.lim.PieceBytes:
			n += more.taken
			continue
		case more.taken > 0:
			return false, inField("data", fmt.Errorf("%w: a piece of %d bytes, must be at most %d", ErrLimit, more.taken, b.lim.PieceBytes))
		case more.begins:
			more.free()
			return false, invalidf("frame", "a frame begins when the one before has %d bytes of %d", n, size)
		case got > b.lim.PieceBytes:
			more.free()
			return false, inField("data", fmt.Errorf("%w: a piece of %d bytes, must be at most %d", ErrLimit, got, b.lim.PieceBytes))
		case got > size-n:
			more.free()
			return false, invalidf("data", "%d bytes more of a frame of %d that has %d", got, size, n)
		case got == 0:
			more.free()
			return false, invalidf("data", "it is empty")
		}
		n += copy((*buf)[n:], more.data)
		more.free()
	}
	f.Sealed = *buf
	return true, addFrame(ctx, u, f, resp)
}

// Buffers of sealed frames and of the messages that bring them. All of a buffer is written
// before it is read, so it need not be cleared as those of the usual pool are.
var sealedPool scratchPool

func addFrame(ctx context.Context, u *store.Upload, f pack.Frame, resp *scalev1.UploadResponse) error {
	r, err := u.Add(ctx, f)
	if err != nil {
		return err
	}
	resp.Chunks += uint64(r.Chunks - r.Duplicate)
	resp.Duplicates += uint64(r.Duplicate)
	return nil
}

// An uploadMessage is an UploadRequest. Its data lies in a buffer that free gives back.
type uploadMessage struct {
	begins     bool // a frame, otherwise it is more of one
	frame      pack.Frame
	sealedSize uint32
	data       []byte
	buf        mem.Buffer

	// A message of nothing but data that fits into it is copied there at once: so many
	// bytes were taken, and data is empty.
	into  []byte
	taken int
}

func (m *uploadMessage) free() {
	if m.buf != nil {
		m.buf.Free()
		m.buf, m.data = nil, nil
	}
}

func (m *uploadMessage) decode(data mem.BufferSlice) error {
	into := m.into
	if *m = (uploadMessage{taken: takeData(into, data)}); m.taken > 0 {
		return nil
	}
	m.buf = data.MaterializeToBuffer(&sealedPool)
	has := false
	err := eachField(m.buf.ReadOnlyData(), func(num protowire.Number, typ protowire.Type, v, _ []byte) error {
		if num > uploadDataField {
			return nil
		}
		if typ != protowire.BytesType {
			return wrongType("a part of an upload")
		}
		has = true
		m.frame, m.sealedSize, m.begins, m.data = pack.Frame{}, 0, num == uploadFrameField, nil
		if m.begins {
			return m.decodeFrame(v)
		}
		m.data = v
		return nil
	})
	if err == nil && !has {
		err = invalidf("part", "a message without one")
	}
	if err != nil {
		m.free()
	}
	return err
}

// takeData copies the data of a message with one field, which is more of a frame, and
// returns how much there is: nothing if it is any other message, or does not fit.
func takeData(into []byte, msg mem.BufferSlice) int {
	if len(into) == 0 || len(msg) == 0 {
		return 0
	}
	first := msg[0].ReadOnlyData()
	num, typ, n := protowire.ConsumeTag(first)
	if n < 0 || num != uploadDataField || typ != protowire.BytesType {
		return 0
	}
	size, k := protowire.ConsumeVarint(first[n:])
	rest := msg.Len() - n - k
	if k < 0 || rest > len(into) || size != uint64(rest) {
		return 0
	}
	at := copy(into, first[n+k:])
	for _, b := range msg[1:] {
		at += copy(into[at:], b.ReadOnlyData())
	}
	return at
}

func (m *uploadMessage) decodeFrame(b []byte) error {
	codec := scalev1.Codec_CODEC_UNSPECIFIED
	err := eachField(b, func(num protowire.Number, typ protowire.Type, v, raw []byte) error {
		switch num {
		case frameChunksField, frameDataField:
			if typ != protowire.BytesType {
				return wrongType("frame")
			}
		case frameCodecField, framePlainField, frameSealedField:
			if typ != protowire.VarintType {
				return wrongType("frame")
			}
		}
		switch num {
		case frameCodecField:
			codec = scalev1.Codec(int32(uintOf(raw)))
		case framePlainField:
			m.frame.PlainSize = uint32(uintOf(raw))
		case frameSealedField:
			m.sealedSize = uint32(uintOf(raw))
		case frameChunksField:
			if len(m.frame.Chunks) >= maxFrameChunks {
				return invalidf("frame.chunks", "more than %d", maxFrameChunks)
			}
			c, err := decodeChunk(v)
			if err != nil {
				return inField("frame.chunks", err)
			}
			m.frame.Chunks = append(m.frame.Chunks, pack.Chunk{Digest: c.Digest, Size: c.Size})
		case frameDataField:
			m.data = v
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch codec {
	case scalev1.Codec_CODEC_RAW:
		m.frame.Codec = compress.Raw
	case scalev1.Codec_CODEC_ZSTD:
		m.frame.Codec = compress.Zstd
	default:
		return invalidf("frame.codec", "%v is not a codec", codec)
	}
	return nil
}

// uintOf returns the value of a varint field that has been checked.
func uintOf(raw []byte) uint64 {
	_, _, n := protowire.ConsumeTag(raw)
	v, _ := protowire.ConsumeVarint(raw[n:])
	return v
}

// decodeChunk reads a Chunk.
func decodeChunk(b []byte) (store.Chunk, error) {
	var c store.Chunk
	has := false
	err := eachField(b, func(num protowire.Number, typ protowire.Type, v, raw []byte) error {
		switch {
		case num == chunkDigestField && typ == protowire.BytesType:
			if len(v) != len(c.Digest) {
				return invalidf("digest", "%d bytes, a digest has %d", len(v), len(c.Digest))
			}
			c.Digest, has = dag.Digest(v), true
		case num == chunkSizeField && typ == protowire.VarintType:
			size := uintOf(raw)
			if size > dag.MaxBlock {
				return invalidf("size", "%d, a chunk has at most %d bytes", size, dag.MaxBlock)
			}
			c.Size = uint32(size)
		case num == chunkDigestField, num == chunkSizeField:
			return wrongType("a chunk")
		}
		return nil
	})
	switch {
	case err != nil:
		return c, err
	case !has:
		return c, invalidf("digest", "it is missing")
	case c.Size == 0:
		return c, invalidf("size", "a chunk has at least one byte")
	}
	return c, nil
}
