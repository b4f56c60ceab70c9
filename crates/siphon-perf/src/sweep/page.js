'use strict';
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const bar = document.querySelector('.bar');
bar.hidden = false;

// Shows the series and rows all of whose attributes are chosen, on the chosen axis. What is on the axis
// is shown whole.
function show() {
  const axis = bar.querySelector('[name=axis]:checked')?.value ?? document.querySelector('.charts').dataset.axis;
  all('.charts').forEach(it => { it.hidden = it.dataset.axis !== axis; });
  const off = {};
  all('input[data-of]', bar).forEach(it => { if (!it.checked && it.dataset.of !== axis) (off[it.dataset.of] ??= new Set()).add(it.value); });
  all('.s').forEach(it => {
    it.classList.toggle('off', Object.entries(off).some(([name, values]) => values.has(it.dataset[name])));
  });
  all('fieldset[data-of]', bar).forEach(it => it.classList.toggle('off', it.dataset.of === axis));
  all('i[data-colour]', bar).forEach(it => { it.hidden = it.dataset.colour !== document.querySelector(`.charts[data-axis=${axis}]`).dataset.coloured; });
  const raw = bar.querySelector('[name=raw]');
  document.body.classList.toggle('noraw', !raw.checked);
}
bar.addEventListener('change', show);
show();

const tip = document.createElement('div');
tip.id = 'tip';
document.body.append(tip);
all('.hit').forEach(it => { it.dataset.tip = it.textContent; it.replaceChildren(); });
document.addEventListener('pointermove', event => {
  const text = event.target.dataset?.tip;
  tip.style.opacity = text ? 1 : 0;
  if (!text) return;
  tip.textContent = text;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
});
