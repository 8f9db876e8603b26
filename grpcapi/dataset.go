package grpcapi

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

type datasets struct {
	scalev1.UnimplementedDatasetServiceServer
	*Server
}

// Get implements DatasetServiceServer.
func (d *datasets) Get(req *scalev1.GetRequest, ss grpc.ServerStreamingServer[scalev1.GetResponse]) error {
	ctx := ss.Context()
	o, err := d.resolve(ctx, req.GetRef(), req.GetPath())
	if err != nil {
		return err
	}
	switch o.Info.Kind {
	case dag.KindFile:
	case 0: // its blocks are not there, which the engine says
		_, err := d.store.Get(ctx, o, nil, io.Discard)
		return err
	default:
		return invalidf("ref", "%s is not a file but a %v; GetTree gives trees", o, o.Info.Kind)
	}
	r, err := byteRange(req.GetRange(), o.Info.Size)
	if err != nil {
		return err
	}
	if req.GetSealed() {
		return d.sendSealed(ctx, ss, o, r)
	}
	return d.sendFile(ctx, ss, o, r, getDataField)
}

// Numbers of fields that are written by hand; TestFieldNumbers compares them with the API.
const (
	getDataField   = 1
	proveDataField = 3
	carDataField   = 1
)

// Stat implements DatasetServiceServer.
func (d *datasets) Stat(ctx context.Context, req *scalev1.StatRequest) (*scalev1.StatResponse, error) {
	o, err := d.resolve(ctx, req.GetRef(), req.GetPath())
	if err != nil {
		return nil, err
	}
	return &scalev1.StatResponse{Dataset: protoDataset(&o.Dataset), Entry: objectEntry(&o, o.Path)}, nil
}

// Resolve implements DatasetServiceServer.
func (d *datasets) Resolve(ctx context.Context, req *scalev1.ResolveRequest) (*scalev1.ResolveResponse, error) {
	o, err := d.resolve(ctx, req.GetRef(), req.GetPath())
	if err != nil {
		return nil, err
	}
	return &scalev1.ResolveResponse{
		Entry: o.Dataset.Entry, Name: o.Dataset.Name, Version: uint32(o.Dataset.Version), Cid: o.CID.String(), Path: []byte(o.Path),
	}, nil
}

// ListDatasets implements DatasetServiceServer.
func (d *datasets) ListDatasets(ctx context.Context, req *scalev1.ListDatasetsRequest) (*scalev1.ListDatasetsResponse, error) {
	var t namesToken
	if err := parsePage(req.GetPageToken(), &t); err != nil {
		return nil, err
	}
	resp := &scalev1.ListDatasetsResponse{}
	size := pageLength(req.GetPageSize(), 100, 1000)
	if err := d.reserve(ctx, size*datasetBytes); err != nil {
		return nil, err
	}
	for ds, err := range d.store.DatasetsFrom(ctx, t.after) {
		if err != nil {
			return nil, err
		}
		if len(resp.Datasets) == size {
			resp.NextPageToken = formatPage(&namesToken{after: resp.Datasets[size-1].Name})
			break
		}
		resp.Datasets = append(resp.Datasets, protoDataset(&ds))
	}
	return resp, nil
}

// ListVersions implements DatasetServiceServer.
func (d *datasets) ListVersions(ctx context.Context, req *scalev1.ListVersionsRequest) (*scalev1.ListVersionsResponse, error) {
	if err := checkName("name", req.GetName()); err != nil {
		return nil, err
	}
	t := versionsToken{name: req.GetName()}
	if err := parsePage(req.GetPageToken(), &t); err != nil {
		return nil, err
	}
	resp := &scalev1.ListVersionsResponse{}
	size := pageLength(req.GetPageSize(), 100, 1000)
	if err := d.reserve(ctx, size*datasetBytes); err != nil {
		return nil, err
	}
	last := 0
	for v, err := range d.store.HistoryFrom(ctx, req.GetName(), t.after) {
		if err != nil {
			return nil, err
		}
		if len(resp.Versions) == size {
			resp.NextPageToken = formatPage(&versionsToken{name: req.GetName(), after: last})
			break
		}
		if v.Removal != nil {
			last = v.Removal.Version
			resp.Versions = append(resp.Versions, &scalev1.Version{What: &scalev1.Version_Removal{Removal: protoRemoval(v.Removal)}})
			continue
		}
		last = v.Dataset.Version
		resp.Versions = append(resp.Versions, &scalev1.Version{What: &scalev1.Version_Dataset{Dataset: protoDataset(v.Dataset)}})
	}
	return resp, nil
}

// ListTree implements DatasetServiceServer.
func (d *datasets) ListTree(ctx context.Context, req *scalev1.ListTreeRequest) (*scalev1.ListTreeResponse, error) {
	t := treeToken{asked: askedHash(req.GetRef(), req.GetPath())}
	first := req.GetPageToken() == ""
	if err := parsePage(req.GetPageToken(), &t); err != nil {
		return nil, err
	}
	size := pageLength(req.GetPageSize(), 1000, 10_000)
	room := min(d.lim.MessageBytes, maxPageBytes) - treeSlack
	if err := d.reserve(ctx, treePageBytes); err != nil {
		return nil, err
	}
	// Reading directories takes what reading files does.
	if err := d.reads.small.enter(ctx); err != nil {
		return nil, err
	}
	defer d.reads.small.leave()
	var o store.Object
	var err error
	if first {
		o, err = d.resolve(ctx, req.GetRef(), req.GetPath())
		t.entry, t.below = o.Dataset.Entry, o.Path
	} else {
		o, err = d.resolve(ctx, entryRef(t.entry), []byte(t.below))
	}
	if err != nil {
		return nil, err
	}
	resp := &scalev1.ListTreeResponse{}
	if first {
		resp.Entries = append(resp.Entries, objectEntry(&o, ""))
		if o.Info.Kind != dag.KindDir && o.Info.Kind != 0 {
			return resp, nil
		}
	}
	for e, err := range d.store.ListFrom(ctx, o, t.after) {
		if err != nil {
			return nil, err
		}
		room -= entryBytes(&e)
		if len(resp.Entries) >= size || room < 0 && len(resp.Entries) > 0 {
			resp.NextPageToken = formatPage(&t)
			break
		}
		resp.Entries = append(resp.Entries, protoEntry(&e))
		t.after = e.Path
	}
	return resp, nil
}

const (
	// treeSlack is what a page of a tree needs besides its entries: the token, which has
	// two paths.
	treeSlack = 64 << 10
	// entrySlack is what an entry needs besides its path and target.
	entrySlack = 160
	// treePageBytes is what a page of a tree takes while it is made, and datasetBytes a
	// dataset of a page.
	treePageBytes = 4 * maxPageBytes
	datasetBytes  = 2 << 10
)

func entryBytes(e *store.Entry) int { return len(e.Path) + len(e.Info.Target) + entrySlack }

// pageLength returns how many a page has.
func pageLength(asked uint32, usual, most int) int {
	switch {
	case asked == 0:
		return usual
	case asked > uint32(most):
		return most
	}
	return int(asked)
}

// Remove implements DatasetServiceServer.
func (d *datasets) Remove(ctx context.Context, req *scalev1.RemoveRequest) (*scalev1.RemoveResponse, error) {
	if err := checkName("name", req.GetName()); err != nil {
		return nil, err
	}
	sig, err := signer("signed_entry", req.GetSignedEntry())
	if err != nil {
		return nil, err
	}
	r, err := d.store.Remove(ctx, req.GetName(), store.PutOptions{Curator: sig})
	if err != nil {
		return nil, err
	}
	return &scalev1.RemoveResponse{Removal: protoRemoval(&r), Checkpoint: d.checkpoint(d.store.Published())}, nil
}

// ExportCar implements DatasetServiceServer.
func (d *datasets) ExportCar(req *scalev1.ExportCarRequest, ss grpc.ServerStreamingServer[scalev1.ExportCarResponse]) error {
	ctx := ss.Context()
	o, err := d.resolve(ctx, req.GetRef(), req.GetPath())
	if err != nil {
		return err
	}
	w := &pieceWriter{field: carDataField, to: accountOf(ctx)}
	reserved := false
	return pump(ctx, ss, d.reads.car, func(ctx context.Context, push func(*encoded) error) error {
		// Not before it has its place: for that one may wait long, with nothing to take.
		if !reserved {
			if err := d.reserve(ctx, streamBytes); err != nil {
				return err
			}
			reserved = true
		}
		w.push = push
		at := req.GetOffset() + w.total
		if at < w.total {
			return invalidf("offset", "%d is more than there can be", req.GetOffset())
		}
		err := d.store.ExportCARFrom(ctx, o, at, w)
		if errors.Is(err, store.ErrInvalid) {
			err = inField("offset", err)
		}
		if err != nil {
			return letGo(err)
		}
		return w.flush()
	})
}
