mod budgets;
mod history;
mod lasting;
mod single;
mod world;
