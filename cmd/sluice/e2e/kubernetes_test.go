package e2e

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// What of Kubernetes' objects the manifests use. Another name is a mistake, or
// is to be added here.
type (
	labels map[string]string

	Object struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct {
			Name   string
			Labels labels
		}
	}
	selector struct {
		MatchLabels labels `yaml:"matchLabels"`
	}
	service struct {
		Object `yaml:",inline"`
		Spec   struct {
			Selector labels
			Ports    []struct {
				Name       string
				Port       int
				TargetPort string `yaml:"targetPort"`
			}
		}
	}
	budget struct {
		Object `yaml:",inline"`
		Spec   struct {
			MaxUnavailable int `yaml:"maxUnavailable"`
			Selector       selector
		}
	}
	deployment struct {
		Object `yaml:",inline"`
		Spec   struct {
			Replicas int
			Selector selector
			Strategy struct {
				Type          string
				RollingUpdate struct {
					MaxSurge       int `yaml:"maxSurge"`
					MaxUnavailable int `yaml:"maxUnavailable"`
				} `yaml:"rollingUpdate"`
			}
			MinReadySeconds int `yaml:"minReadySeconds"`
			Template        struct {
				Metadata struct{ Labels labels }
				Spec     pod
			}
		}
	}
	pod struct {
		AutomountServiceAccountToken  bool `yaml:"automountServiceAccountToken"`
		TerminationGracePeriodSeconds int  `yaml:"terminationGracePeriodSeconds"`
		SecurityContext               struct {
			RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
			RunAsUser      int                   `yaml:"runAsUser"`
			SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
		} `yaml:"securityContext"`
		TopologySpreadConstraints []struct {
			MaxSkew           int      `yaml:"maxSkew"`
			TopologyKey       string   `yaml:"topologyKey"`
			WhenUnsatisfiable string   `yaml:"whenUnsatisfiable"`
			LabelSelector     selector `yaml:"labelSelector"`
		} `yaml:"topologySpreadConstraints"`
		Containers []container
	}
	container struct {
		Name, Image string
		Args        []string
		Env         []struct {
			Name, Value string
			ValueFrom   struct {
				SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
			} `yaml:"valueFrom"`
		}
		Ports []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		Lifecycle struct {
			PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
		}
		ReadinessProbe  probe `yaml:"readinessProbe"`
		LivenessProbe   probe `yaml:"livenessProbe"`
		Resources       struct{ Requests, Limits map[string]string }
		SecurityContext struct {
			AllowPrivilegeEscalation bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop []string }
		} `yaml:"securityContext"`
	}
	probe struct {
		HTTPGet          struct{ Path, Port string } `yaml:"httpGet"`
		PeriodSeconds    int                         `yaml:"periodSeconds"`
		FailureThreshold int                         `yaml:"failureThreshold"`
	}
)

// manifests reads the objects for Kubernetes.
func manifests(t *testing.T) (s service, b budget, d deployment) {
	t.Helper()
	for text := range strings.SplitSeq(read(t, "deploy/kubernetes/sluice.yaml"), "\n---\n") {
		var o Object
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		switch o.APIVersion + " " + o.Kind {
		case "v1 Service":
			strictly(t, text, &s)
		case "policy/v1 PodDisruptionBudget":
			strictly(t, text, &b)
		case "apps/v1 Deployment":
			strictly(t, text, &d)
		default:
			t.Fatalf("nobody knows a %s of %s", o.Kind, o.APIVersion)
		}
	}
	if len(d.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("a pod has %d containers", len(d.Spec.Template.Spec.Containers))
	}
	return s, b, d
}

func TestKubernetesObjectsMeanTheSamePods(t *testing.T) {
	s, b, d := manifests(t)
	pods := d.Spec.Template.Metadata.Labels
	for what, chosen := range map[string]labels{
		"service": s.Spec.Selector, "budget": b.Spec.Selector.MatchLabels, "deployment": d.Spec.Selector.MatchLabels,
		"spread": d.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
	} {
		if len(chosen) == 0 || !maps.Equal(chosen, pods) {
			t.Errorf("the %s chooses %v, pods are %v", what, chosen, pods)
		}
	}
	if b.Spec.MaxUnavailable < 1 || b.Spec.MaxUnavailable >= d.Spec.Replicas {
		t.Errorf("%d of %d nodes may be away", b.Spec.MaxUnavailable, d.Spec.Replicas)
	}
	if update := d.Spec.Strategy.RollingUpdate; update.MaxUnavailable != 0 || update.MaxSurge < 1 {
		t.Errorf("an update takes nodes away before there are others: %+v", update)
	}
	ports := d.Spec.Template.Spec.Containers[0].Ports
	for _, port := range s.Spec.Ports {
		if !slices.ContainsFunc(ports, func(p struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}) bool {
			return p.Name == port.TargetPort
		}) {
			t.Errorf("the service sends to port %q, which no pod has", port.TargetPort)
		}
		if port.TargetPort == "admin" {
			t.Error("the service shows the admin listener")
		}
	}
}

func TestKubernetesAsksAndWaitsAsANodeNeedsIt(t *testing.T) {
	_, _, d := manifests(t)
	spec := d.Spec.Template.Spec
	c := spec.Containers[0]
	if c.ReadinessProbe.HTTPGet.Path != "/readyz" || c.LivenessProbe.HTTPGet.Path != "/healthz" {
		t.Errorf("it asks %s and %s", c.ReadinessProbe.HTTPGet.Path, c.LivenessProbe.HTTPGet.Path)
	}
	for _, p := range []probe{c.ReadinessProbe, c.LivenessProbe} {
		if p.HTTPGet.Port != "http" || p.PeriodSeconds == 0 || p.FailureThreshold == 0 {
			t.Errorf("a probe is %+v", p)
		}
	}
	drain := defaultDrain(t)
	var names []string
	for _, v := range c.Env {
		names = append(names, v.Name)
		if v.Name == "SLUICE_DRAIN" {
			drain = duration(t, v.Value)
		}
		if v.Value == "" && v.ValueFrom.SecretKeyRef.Key == "" {
			t.Errorf("%s has no value", v.Name)
		}
	}
	checkVariables(t, "the deployment", names)
	pause := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	if grace := time.Duration(spec.TerminationGracePeriodSeconds) * time.Second; grace <= pause+drain {
		t.Errorf("a pod has %v to end, pauses for %v, and drains for %v", grace, pause, drain)
	}
	hard := c.SecurityContext
	if !spec.SecurityContext.RunAsNonRoot || hard.AllowPrivilegeEscalation || !hard.ReadOnlyRootFilesystem || !slices.Equal(hard.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("a pod may do too much: %+v, %+v", spec.SecurityContext, hard)
	}
}
