package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// client is a user of the API server with an own certificate and kubeconfig.
type client struct {
	name   string // file name
	user   string
	groups []string
}

var clients = []client{
	{"admin", "patchbay-admin", []string{"system:masters"}},
	{"kube-controller-manager", "system:kube-controller-manager", nil},
	{"kube-scheduler", "system:kube-scheduler", nil},
	{"kube-proxy", "system:kube-proxy", nil},
	{"kube-router", enforcerUser, nil},
	{"kubelet", "system:node:" + nodeName, []string{"system:nodes"}},
	{"apiserver-kubelet-client", "patchbay-apiserver", []string{"system:masters"}},
}

// certificateLife is long enough for every test and short enough to be no
// standing credential.
const certificateLife = 365 * 24 * time.Hour

// authority signs the certificates of one cluster.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// writePKI makes a new authority and every key and certificate of the cluster.
func writePKI(l Layout) error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := writeKeyPair(l, "ca", ca.cert.Raw, ca.key); err != nil {
		return err
	}
	servers := []*x509.Certificate{
		{
			Subject: pkix.Name{CommonName: "kube-apiserver"},
			DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc.cluster.local"},
			IPAddresses: []net.IP{net.ParseIP(nodeAddress), net.ParseIP(firstService), net.IPv4(127, 0, 0, 1)},
		},
		{
			Subject:     pkix.Name{CommonName: "kubelet-server"},
			DNSNames:    []string{nodeName},
			IPAddresses: []net.IP{net.ParseIP(nodeAddress)},
		},
	}
	for _, template := range servers {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if err := ca.issue(l, template.Subject.CommonName, template); err != nil {
			return err
		}
	}
	for _, c := range clients {
		if err := ca.issue(l, c.name, &x509.Certificate{
			Subject:     pkix.Name{CommonName: c.user, Organization: c.groups},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}); err != nil {
			return err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of service accounts: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encode the key of service accounts: %w", err)
	}
	if err := writeKey(l, "service-accounts", key); err != nil {
		return err
	}
	return writePEM(l.pki("service-accounts.pub"), "PUBLIC KEY", public, 0o644)
}

func newAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, fmt.Errorf("make the authority's key: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "patchbay-cluster"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if err := date(template); err != nil {
		return authority{}, err
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return authority{}, fmt.Errorf("sign the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return authority{}, fmt.Errorf("read the authority's certificate: %w", err)
	}
	return authority{cert: cert, key: key}, nil
}

func (ca authority) issue(l Layout, name string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of %s: %w", name, err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if err := date(template); err != nil {
		return err
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	return writeKeyPair(l, name, raw, key)
}

// date gives a certificate its serial number and life. It begins in the past,
// so that a clock set back a little does not lock everybody out.
func date(template *x509.Certificate) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("draw a serial number: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(certificateLife)
	return nil
}

func writeKeyPair(l Layout, name string, cert []byte, key *ecdsa.PrivateKey) error {
	if err := writePEM(l.pki(name+".crt"), "CERTIFICATE", cert, 0o644); err != nil {
		return err
	}
	return writeKey(l, name, key)
}

func writeKey(l Layout, name string, key *ecdsa.PrivateKey) error {
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key of %s: %w", name, err)
	}
	return writePEM(l.pki(name+".key"), "EC PRIVATE KEY", raw, 0o600)
}

func writePEM(path, kind string, raw []byte, mode os.FileMode) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
	if err := os.WriteFile(path, text, mode); err != nil {
		return fmt.Errorf("write a key or certificate: %w", err)
	}
	return nil
}
