package main

import (
	"context"
	"io"
	"iter"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store"
)

// An engine is what verbs work on: a store that this process owns, or a node.
type engine interface {
	Origin() string
	VerifierKey() string
	Doubt() error

	Put(ctx context.Context, in []store.Input, o store.PutOptions) ([]store.PutResult, error)
	Remove(ctx context.Context, name string, o store.PutOptions) (store.Removal, error)

	Resolve(ctx context.Context, ref string) (store.Object, error)
	Get(ctx context.Context, o store.Object, r *store.Range, w io.Writer) (int64, error)
	GetTree(ctx context.Context, o store.Object, v store.Visitor) error
	ExportCAR(ctx context.Context, o store.Object, w io.Writer) error

	Datasets(ctx context.Context) iter.Seq2[store.Dataset, error]
	History(ctx context.Context, name string) iter.Seq2[store.Version, error]
	List(ctx context.Context, o store.Object) iter.Seq2[store.Entry, error]
	Totals(ctx context.Context) (store.Totals, error)

	Prove(ctx context.Context, o store.Object, opt store.ProveOptions) (*proof.Proof, error)
	Audit(ctx context.Context, o store.Object, q grpcapi.AuditOptions) (*audit.Result, error)

	Head(ctx context.Context, name string) (store.Head, error)
	Entries(ctx context.Context, from, to int64) iter.Seq2[store.LedgerEntry, error]
	Follow(ctx context.Context, from int64) iter.Seq2[store.LedgerEntry, error]
	Consistency(ctx context.Context, from, to int64) (tlog.TreeProof, error)
	ExportLog(ctx context.Context, dir string) error

	Policy(ctx context.Context) (store.PolicyInfo, error)
	AddCurator(ctx context.Context, key ledger.CuratorKey, signer store.Signer) (store.PolicyInfo, bool, error)
	RemoveCurator(ctx context.Context, key ledger.CuratorKey, signer store.Signer) (store.PolicyInfo, bool, error)

	AnchorChains(ctx context.Context) (chains []anchor.ChainState, working bool, err error)
	Anchors(ctx context.Context, chain string) iter.Seq2[*anchor.Row, error]
	AnchorReceipts(ctx context.Context, entry int64) (claims []anchor.Claim, final int64, err error)
	AnchorNow(ctx context.Context, chain string) (size int64, chains []string, err error)
	WatchAnchors(ctx context.Context, chain string) iter.Seq2[*anchor.Row, error]
	AnchorConfig(ctx context.Context) (anchor.Config, error)
	ConfigureAnchors(ctx context.Context, c anchor.ChainConfig, remove bool) error

	Close() error
}

var (
	_ engine = (*owner)(nil)
	_ engine = (*grpcapi.Client)(nil)
	_ engine = (*guest)(nil)
)
