sluice.subscribe('lobby', {
  onEvent: (e) => { document.body.textContent = e.data; },
  onState: (s) => { document.body.dataset.state = s.state; },
});
