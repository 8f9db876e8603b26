package arweave

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/everFinance/goar/types"
	"github.com/everFinance/goar/utils"

	"github.com/koii-network/scale/anchor"
)

// Names and values of a transaction's tags.
const (
	AppName     = "SCALE"
	ContentType = "application/vnd.koii.scale-extension.v1"

	tagApp        = "App-Name"
	tagType       = "Content-Type"
	tagOrigin     = "Origin"
	tagCheckpoint = "Checkpoint"
)

const (
	maxTags     = 2048 // bytes of all names and values; the network's bound
	maxAnchor   = 48   // bytes of last_tx
	maxDataSize = 1 << 40
)

// encode returns base64url without padding.
func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode reads it in its one form.
func decode(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil && encode(b) != s {
		err = fmt.Errorf("base64url is not in its one form")
	}
	return b, err
}

// isID tells whether a text is the name of a transaction.
func isID(s string) bool {
	b, err := decode(s)
	return err == nil && len(b) == sha256.Size
}

// A Header is a transaction without its body, opened and found to hold.
type Header struct {
	anchor.Anchored
	// Raw is the header in its one form.
	Raw    []byte
	Origin string // as its tag says
	Reward uint64 // winston
}

// format returns a transaction's header in its one form: JSON without space, the
// fields in the order of SPEC.md, the field "data" empty. It is what POST /tx takes.
func format(tx types.Transaction) ([]byte, error) {
	tx.Data, tx.DataReader, tx.Chunks = "", nil, nil
	return json.Marshal(tx)
}

// open parses and checks a header. Its errors wrap anchor.ErrForged.
func open(raw []byte) (Header, error) {
	forged := func(text string, a ...any) (Header, error) {
		return Header{}, fmt.Errorf("arweave transaction: %s: %w", fmt.Sprintf(text, a...), anchor.ErrForged)
	}
	if len(raw) == 0 || len(raw) > anchor.MaxRaw {
		return forged("%d bytes", len(raw))
	}
	var tx types.Transaction
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&tx); err != nil {
		return forged("%v", err)
	}
	if again, err := format(tx); err != nil || !bytes.Equal(again, raw) {
		return forged("not in its one form")
	}
	bad := ""
	field := func(name, s string, least, most int) []byte {
		b, err := decode(s)
		if err != nil || len(b) < least || len(b) > most {
			bad = name
		}
		return b
	}
	number := func(name, s string) uint64 {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil || strconv.FormatUint(n, 10) != s {
			bad = name
		}
		return n
	}
	id := field("id", tx.ID, sha256.Size, sha256.Size)
	owner := field("owner", tx.Owner, keyBits/8, keyBits/8)
	sig := field("signature", tx.Signature, keyBits/8, keyBits/8)
	root := field("data_root", tx.DataRoot, sha256.Size, sha256.Size)
	field("last_tx", tx.LastTx, 0, maxAnchor)
	size, reward := number("data_size", tx.DataSize), number("reward", tx.Reward)
	tags, used := map[string]string{}, 0
	for _, t := range tx.Tags {
		n, v := string(field("tags", t.Name, 1, maxTags)), string(field("tags", t.Value, 0, maxTags))
		if used += len(n) + len(v); used > maxTags {
			return forged("more than %d bytes of tags", maxTags)
		}
		if _, twice := tags[n]; twice {
			return forged("tag %q twice", n)
		}
		tags[n] = v
	}
	switch digest := sha256.Sum256(sig); {
	case bad != "":
		return forged("field %q", bad)
	case tx.Format != 2:
		return forged("format %d", tx.Format)
	case tx.Target != "" || tx.Quantity != "0":
		return forged("pays somebody")
	case size < 1 || size > maxDataSize:
		return forged("body of %d bytes", size)
	case !bytes.Equal(id, digest[:]):
		return forged("its id is not the digest of its signature")
	case tags[tagApp] != AppName || tags[tagType] != ContentType:
		return forged("tags are not those of an extension")
	case tags[tagCheckpoint] == "" || !strings.HasPrefix(tags[tagCheckpoint], tags[tagOrigin]+"\n"):
		return forged("no checkpoint of the origin %q in its tags", tags[tagOrigin])
	}
	msg, err := utils.GetSignatureData(&tx)
	if err != nil {
		return forged("%v", err)
	}
	if err := utils.Verify(msg, &rsa.PublicKey{N: new(big.Int).SetBytes(owner), E: exponent}, sig); err != nil {
		return forged("signature: %v", err)
	}
	return Header{
		Anchored: anchor.Anchored{ID: tx.ID, Checkpoint: []byte(tags[tagCheckpoint]), Signer: address(owner), DataRoot: root, DataSize: int64(size)},
		Raw:      raw, Origin: tags[tagOrigin], Reward: reward,
	}, nil
}

// Verifier checks receipts offline. Tags and body can be anybody's: that the log signed
// the checkpoint is what counts, and is for the caller to check.
type Verifier struct{}

// Name implements anchor.Verifier.
func (Verifier) Name() string { return Name }

// Open implements anchor.Verifier.
func (Verifier) Open(r anchor.Receipt) (anchor.Anchored, error) {
	h, err := open(r.Raw)
	return h.Anchored, err
}
